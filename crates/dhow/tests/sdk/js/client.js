// The client half of Dapr's JavaScript SDK, every block, over the protocol that the command line names.

const { assert, check, contains, eventually, rejected, run, Seen } = require("./checks");
const fs = require("node:fs");
const { CommunicationProtocolEnum, DaprClient, HttpMethod, LogLevel, StateConcurrencyEnum, StateConsistencyEnum } =
  require("@dapr/dapr");
const { LockStatus } = require("@dapr/dapr/types/lock/UnlockResponse");

const http = process.argv[2] === "http";
const silent = { log() {}, error() {}, warn() {}, info() {}, verbose() {}, debug() {} };
const dapr = new DaprClient({
  daprHost: "127.0.0.1",
  daprPort: http ? process.env.DAPR_HTTP_PORT : process.env.DAPR_GRPC_PORT,
  communicationProtocol: http ? CommunicationProtocolEnum.HTTP : CommunicationProtocolEnum.GRPC,
  logger: { level: LogLevel?.Error, service: silent },
});

// What Dapr's SDK says when the sidecar refused: its error has code and text.
function refusal(error, code, grpc, message) {
  assert.ok(error, "no error");
  contains(error.message, message);
  if (http) {
    const { error: status, error_msg, status: number } = JSON.parse(error.message);
    const body = JSON.parse(error_msg);
    assert.equal(body.errorCode, code, `${status} ${number}`);
  } else {
    assert.equal(error.code, grpc);
  }
}

// Over HTTP the SDK hands some errors back, which it throws over gRPC.
async function failure(promise) {
  try {
    return (await promise).error;
  } catch (error) {
    return error.error ?? error;
  }
}

const INVALID_ARGUMENT = 3;
const ABORTED = 10;
const INTERNAL = 13;

check("state", async () => {
  const values = [
    { key: "text", value: "hello" },
    { key: "object", value: { a: [1, { b: null }] } },
    { key: "number", value: 42 },
  ];
  assert.deepEqual(await dapr.state.save("statestore", values), {});
  assert.equal(await dapr.state.get("statestore", "text"), "hello");
  assert.deepEqual(await dapr.state.get("statestore", "object"), { a: [1, { b: null }] });
  assert.deepEqual(await dapr.state.get("statestore", "number"), 42);
  assert.equal(await dapr.state.get("statestore", "absent"), "");
  const bulk = await dapr.state.getBulk("statestore", ["text", "object", "absent"]);
  const found = Object.fromEntries(bulk.map(({ key, data }) => [key, data]));
  assert.equal(found.text, "hello");
  assert.deepEqual(found.object, { a: [1, { b: null }] });
  assert.ok(!found.absent);
  assert.deepEqual(await dapr.state.delete("statestore", "text"), {});
  assert.equal(await dapr.state.get("statestore", "text"), "");
});

check("state: transactions", async () => {
  await dapr.state.save("statestore", [{ key: "gone", value: "x" }]);
  await dapr.state.transaction("statestore", [
    { operation: "upsert", request: { key: "t1", value: "one" } },
    { operation: "delete", request: { key: "gone" } },
  ]);
  assert.equal(await dapr.state.get("statestore", "t1"), "one");
  assert.equal(await dapr.state.get("statestore", "gone"), "");
});

check("state: etags", async () => {
  await dapr.state.save("statestore", [{ key: "e", value: "1" }]);
  const [{ etag }] = await dapr.state.getBulk("statestore", ["e"]);
  const options = { concurrency: StateConcurrencyEnum.CONCURRENCY_FIRST_WRITE, consistency: StateConsistencyEnum.CONSISTENCY_STRONG };
  assert.deepEqual(await dapr.state.save("statestore", [{ key: "e", value: "second", etag, options }]), {});
  const stale = await failure(dapr.state.save("statestore", [{ key: "e", value: "3", etag, options }]));
  refusal(stale, "ERR_STATE_SAVE", ABORTED, "possible etag mismatch. error from state store");
  const kept = await failure(dapr.state.delete("statestore", "e", { etag }));
  refusal(kept, "ERR_STATE_DELETE", ABORTED, "possible etag mismatch");
  assert.equal(await dapr.state.get("statestore", "e"), "second");
});

check("state: time to live", async () => {
  await dapr.state.save("statestore", [{ key: "short", value: "x", metadata: { ttlInSeconds: "3600" } }]);
  assert.equal(await dapr.state.get("statestore", "short"), "x");
  const bad = await failure(dapr.state.save("statestore", [{ key: "short", value: "x", metadata: { ttlInSeconds: "soon" } }]));
  refusal(bad, "ERR_STATE_SAVE", INTERNAL, "ttl");
});

check("state: refusals", async () => {
  const missing = "state store nostore is not found";
  const code = "ERR_STATE_STORE_NOT_FOUND";
  refusal(await failure(dapr.state.save("nostore", [{ key: "k", value: 1 }])), code, INVALID_ARGUMENT, missing);
  refusal(await failure(dapr.state.delete("nostore", "k")), code, INVALID_ARGUMENT, missing);
  refusal(await rejected(dapr.state.get("nostore", "k")), code, INVALID_ARGUMENT, missing);
  refusal(await rejected(dapr.state.getBulk("nostore", ["k"])), code, INVALID_ARGUMENT, missing);
  const query = { filter: { EQ: { a: 1 } } };
  refusal(await rejected(dapr.state.query("statestore", query)), "ERR_STATE_STORE_NOT_SUPPORTED", INTERNAL, "doesn't support");
});

check("publish", async () => {
  assert.deepEqual(await dapr.pubsub.publish("pubsub", "nobody", { a: 1 }), {});
  assert.deepEqual(await dapr.pubsub.publish("pubsub", "nobody", "text", { contentType: "text/plain" }), {});
  assert.deepEqual(await dapr.pubsub.publish("pubsub", "nobody"), {});
  const bulk = await dapr.pubsub.publishBulk("pubsub", "nobody", ["a", { b: 1 }, { entryID: "c", event: "x", contentType: "text/plain" }]);
  assert.deepEqual(bulk, { failedMessages: [] });
  const refused = await failure(dapr.pubsub.publish("nobus", "t", "x"));
  refusal(refused, "ERR_PUBSUB_NOT_FOUND", INVALID_ARGUMENT, "pubsub nobus is not found");
  assert.equal((await dapr.pubsub.publishBulk("nobus", "t", ["a", "b"])).failedMessages.length, 2);
});

check("secrets", async () => {
  assert.deepEqual(await dapr.secret.get("secretstore", "password"), { password: "hunter2" });
  const all = await dapr.secret.getBulk("secretstore");
  assert.deepEqual(all["db:user"], { "db:user": "sa" });
  refusal(await rejected(dapr.secret.get("nosecrets", "x")), "ERR_SECRET_STORE_NOT_FOUND", INVALID_ARGUMENT, "failed finding secret store with key nosecrets");
  refusal(await rejected(dapr.secret.get("secretstore", "nothing")), "ERR_SECRET_GET", INTERNAL, "failed getting secret with key nothing");
});

check("configuration", async () => {
  if (http) return; // The SDK has it over gRPC only.
  const { items } = await dapr.configuration.get("configstore", ["greeting", "limit"]);
  assert.equal(items.greeting.value, "hello");
  assert.equal(items.limit.version, "v2");
  const seen = new Seen();
  const stream = await dapr.configuration.subscribeWithKeys("configstore", ["greeting"], async ({ items }) => {
    if (items.greeting) seen.add(items.greeting.value);
  });
  // The SDK does not tell when the subscription is in force: values are changed until one arrives.
  let turn = 0;
  await eventually(() => {
    fs.writeFileSync("configuration.new", JSON.stringify({ greeting: `changed ${turn++}` }));
    fs.renameSync("configuration.new", "configuration.json");
    return seen.items.some((value) => value.startsWith("changed"));
  });
  await stream.stop();
  refusal(await rejected(dapr.configuration.get("noconfig", [])), "", INVALID_ARGUMENT, "configuration store noconfig not found");
});

check("locks", async () => {
  assert.deepEqual(await dapr.lock.lock("lockstore", "door", "me", 60), { success: true });
  assert.deepEqual(await dapr.lock.lock("lockstore", "door", "you", 60), { success: false });
  assert.deepEqual(await dapr.lock.unlock("lockstore", "door", "you"), { status: LockStatus.LockBelongsToOthers });
  assert.deepEqual(await dapr.lock.unlock("lockstore", "door", "me"), { status: LockStatus.Success });
  assert.deepEqual(await dapr.lock.unlock("lockstore", "door", "me"), { status: LockStatus.LockDoesNotExist });
  refusal(await rejected(dapr.lock.lock("nolocks", "d", "me", 1)), "ERR_LOCK_STORE_NOT_FOUND", INVALID_ARGUMENT, "lock store nolocks not found");
});

check("bindings", async () => {
  const named = { fileName: "note.txt" };
  await dapr.binding.send("files", "create", "what I wrote", named);
  const answer = await dapr.binding.send("files", "get", undefined, named);
  contains(http ? answer : Buffer.from(answer.data), "what I wrote");
  refusal(await rejected(dapr.binding.send("nobinding", "create", "x")), "ERR_INVOKE_OUTPUT_BINDING", INTERNAL, "couldn't find output binding nobinding");
});

check("invocation", async () => {
  const error = await rejected(dapr.invoker.invoke("nobody", "x", HttpMethod.GET));
  refusal(error, "ERR_DIRECT_INVOKE", error.code, "failed to invoke, id: nobody");
});

check("health and metadata", async () => {
  assert.equal(await dapr.health.isHealthy(), true);
  assert.equal(await dapr.metadata.set("color", "blue"), true);
  const metadata = await dapr.metadata.get();
  assert.equal(metadata.id, "js-client");
  assert.equal(metadata.extended.color, "blue");
  const store = metadata.components.find(({ name }) => name === "statestore");
  assert.deepEqual([store.type, store.version], ["state.in-memory", "v1"]);
  assert.ok(store.capabilities.includes("ETAG"));
});

check("many at once", async () => {
  const numbers = [...Array(50).keys()];
  await Promise.all(numbers.map((n) => dapr.state.save("statestore", [{ key: `many-${n}`, value: n }])));
  const found = await Promise.all(numbers.map((n) => dapr.state.get("statestore", `many-${n}`)));
  assert.deepEqual(found.map(Number), numbers);
});

run();
