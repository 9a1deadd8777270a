// The server half of Dapr's JavaScript SDK, over the protocol that the command line names, asked through the client
// half.

const { assert, check, contains, eventually, rejected, run, Seen } = require("./checks");
const { CommunicationProtocolEnum, DaprPubSubStatusEnum, DaprServer, HttpMethod, LogLevel } = require("@dapr/dapr");

const http = process.argv[2] === "http";
const protocol = http ? CommunicationProtocolEnum.HTTP : CommunicationProtocolEnum.GRPC;
const silent = { log() {}, error() {}, warn() {}, info() {}, verbose() {}, debug() {} };
const logger = { level: LogLevel?.Error, service: silent };
const server = new DaprServer({
  serverHost: "127.0.0.1",
  serverPort: process.env.APP_PORT,
  communicationProtocol: protocol,
  logger,
  clientOptions: {
    daprHost: "127.0.0.1",
    daprPort: http ? process.env.DAPR_HTTP_PORT : process.env.DAPR_GRPC_PORT,
    communicationProtocol: protocol,
    logger,
  },
});
const dapr = server.client;
const orders = new Seen();
const routed = new Seen();
const bulk = new Seen();
const dead = new Seen();
const raw = new Seen();
const ticks = new Seen();
let attempts = 0;

check("the server starts", async () => {
  await server.pubsub.subscribe("pubsub", "orders", async (data, headers) => orders.add([data, headers]));
  await server.pubsub.subscribe("pubsub", "raw", async (data) => raw.add(data), undefined, { rawPayload: true });
  await server.pubsub.subscribe("pubsub", "colors", async () => {}, {
    default: "/other",
    rules: [{ match: `event.type == "blue"`, path: "/blue" }],
  });
  server.pubsub.subscribeToRoute("pubsub", "colors", "blue", async (data) => routed.add(["blue", data]));
  server.pubsub.subscribeToRoute("pubsub", "colors", "other", async (data) => routed.add(["other", data]));
  await server.pubsub.subscribeWithOptions("pubsub", "poison", {
    deadLetterTopic: "graves",
    callback: async () => DaprPubSubStatusEnum.DROP,
  });
  await server.pubsub.subscribe("pubsub", "graves", async (data) => dead.add(data));
  await server.pubsub.subscribeWithOptions("pubsub", "stubborn", {
    callback: async () => (++attempts > 2 ? DaprPubSubStatusEnum.SUCCESS : DaprPubSubStatusEnum.RETRY),
  });
  await server.pubsub.subscribeBulk("pubsub", "many", async (data) => bulk.add(data), {
    maxMessagesCount: 10,
    maxAwaitDurationMs: 50,
  });
  await server.binding.receive("tick", async () => ticks.add("tick"));
  await server.invoker.listen("echo", async ({ body, query }) => ({ body, query: query ?? "" }), { method: HttpMethod.POST });
  await server.invoker.listen("get", async () => ({ got: true }), { method: HttpMethod.GET });
  await server.start();
});

check("invocation", async () => {
  const answer = await dapr.invoker.invoke("js-server", "echo", HttpMethod.POST, { a: 1 });
  assert.deepEqual(JSON.parse(answer.body), { a: 1 });
  assert.deepEqual(await dapr.invoker.invoke("js-server", "get", HttpMethod.GET), { got: true });
  const error = await rejected(dapr.invoker.invoke("js-server", "nothing", HttpMethod.POST, {}));
  contains(error.message, http ? "404" : "COULD_NOT_PARSE_RESULT");
});

check("subscriptions are told", async () => {
  const headers = { "dapr-api-token": process.env.DAPR_API_TOKEN ?? "" };
  const url = `http://127.0.0.1:${process.env.DAPR_HTTP_PORT}/v1.0/metadata`;
  const subscriptions = await eventually(async () => (await (await fetch(url, { headers })).json()).subscriptions);
  const topics = subscriptions.map(({ topic }) => topic).sort();
  assert.deepEqual(topics, ["colors", "graves", "many", "orders", "poison", "raw", "stubborn"]);
});

check("events", async () => {
  await dapr.pubsub.publish("pubsub", "orders", { id: 7 });
  await dapr.pubsub.publish("pubsub", "orders", "text", { contentType: "text/plain" });
  const arrived = await orders.wait(2);
  const found = arrived.map(([data]) => data);
  for (const [, headers] of arrived) assert.equal(headers["dapr-api-token"], process.env.APP_API_TOKEN);
  assert.deepEqual(found.find((data) => data.id), { id: 7 });
  assert.ok(found.includes("text"), JSON.stringify(found));
});

check("raw events", async () => {
  await dapr.pubsub.publish("pubsub", "raw", "bare", { contentType: "text/plain", metadata: { rawPayload: "true" } });
  contains((await raw.wait())[0], "bare");
});

check("events are routed", async () => {
  await dapr.pubsub.publish("pubsub", "colors", "sea", { contentType: "text/plain", metadata: { "cloudevent.type": "blue" } });
  await dapr.pubsub.publish("pubsub", "colors", "fire", { contentType: "text/plain" });
  assert.deepEqual((await routed.wait(2)).sort(), [["blue", "sea"], ["other", "fire"]]);
});

check("bulks", async () => {
  const messages = ["a", "b", "c"].map((event) => ({ event, contentType: "text/plain" }));
  assert.deepEqual(await dapr.pubsub.publishBulk("pubsub", "many", messages), { failedMessages: [] });
  assert.deepEqual((await bulk.wait(3)).sort(), ["a", "b", "c"]);
});

check("dropped events go to the dead letters", async () => {
  await dapr.pubsub.publish("pubsub", "poison", "apple", { contentType: "text/plain" });
  assert.deepEqual(await dead.wait(), ["apple"]);
});

check("events are tried again", async () => {
  await dapr.pubsub.publish("pubsub", "stubborn", "x", { contentType: "text/plain" });
  await eventually(() => attempts === 3);
});

check("input bindings", () => ticks.wait());

// The sidecar tells its program to end.
run(() => dapr.sidecar.shutdown());
