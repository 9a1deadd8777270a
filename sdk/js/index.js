// dhow's building blocks for JavaScript, over the calls of WIT package dhow:runtime. What is what stands in
// index.d.ts.
import * as stateCalls from 'dhow:runtime/state@0.1.0';
import * as pubsubCalls from 'dhow:runtime/pubsub@0.1.0';
import * as invokeCalls from 'dhow:runtime/invoke@0.1.0';
import * as lockCalls from 'dhow:runtime/lock@0.1.0';
import * as secretsCalls from 'dhow:runtime/secrets@0.1.0';
import * as configurationCalls from 'dhow:runtime/configuration@0.1.0';
import * as bindingCalls from 'dhow:runtime/binding@0.1.0';
import * as jobsCalls from 'dhow:runtime/jobs@0.1.0';

// Writes that lost a race before an update is given up.
const ATTEMPTS = 20;

const encode = (text) => new TextEncoder().encode(text);
const decode = (bytes) => new TextDecoder().decode(bytes);
const toJson = (value) => encode(JSON.stringify(value));
const fromJson = (bytes) => JSON.parse(decode(bytes));
const pairs = (object = {}) => Object.entries(object).map(([name, value]) => [name, String(value)]);
const bytesOf = (data) => (data === undefined ? new Uint8Array() : typeof data === 'string' ? encode(data) : data);

export class DhowError extends Error {
  constructor(kind, text) {
    super(`${kind}: ${text}`);
    this.name = 'DhowError';
    this.kind = kind;
  }
}

// A call, with the error of WIT as an exception.
function call(f, ...args) {
  try {
    return f(...args);
  } catch (thrown) {
    const error = thrown?.payload ?? thrown;
    throw typeof error?.tag === 'string' ? new DhowError(error.tag, error.val) : thrown;
  }
}

function setOptions({ etag, firstWrite = false, ttlSeconds } = {}, json) {
  return {
    etag,
    concurrency: firstWrite ? 'first-write' : 'last-write',
    ttlSeconds: ttlSeconds === undefined ? undefined : BigInt(ttlSeconds),
    json,
  };
}

export class State {
  constructor(store) {
    this.store = store;
  }

  static open(store = 'statestore') {
    return new State(store);
  }

  get(key) {
    return this.getItem(key)?.value;
  }

  getItem(key) {
    const item = this.getBytes(key);
    return item && { ...item, value: fromJson(item.value) };
  }

  getBytes(key) {
    const item = call(stateCalls.get, this.store, key);
    return item && { value: item.value, ...about(item) };
  }

  set(key, value, options) {
    call(stateCalls.set, this.store, key, toJson(value), setOptions(options, true));
  }

  setBytes(key, bytes, options) {
    call(stateCalls.set, this.store, key, bytes, setOptions(options, false));
  }

  update(key, change) {
    for (let attempt = 1; ; attempt += 1) {
      const item = this.getItem(key);
      const value = change(item?.value);
      try {
        this.set(key, value, item ? { etag: item.etag } : { firstWrite: true });
        return value;
      } catch (error) {
        if (error.kind !== 'conflict' || attempt === ATTEMPTS) throw error;
      }
    }
  }

  delete(key, { etag } = {}) {
    call(stateCalls.delete ?? stateCalls._delete, this.store, key, etag);
  }

  transaction() {
    return new Transaction(this.store);
  }

  keys({ prefix = '', after, limit = 1000 } = {}) {
    return call(stateCalls.listKeys, this.store, prefix, after, limit);
  }

  increment(key, delta = 1) {
    // The bindings of componentize-js 0.19 end the app at a negative 64-bit number.
    if (delta < 0) return this.update(key, (before = 0) => before + delta);
    return Number(call(stateCalls.increment, this.store, key, BigInt(delta)));
  }

  query(query) {
    const { results, token } = call(stateCalls.query, this.store, JSON.stringify(query));
    return { results: results.map(({ key, value, etag }) => ({ key, value: fromJson(value), etag })), token };
  }
}

function about({ etag, expiresAt }) {
  return { etag, expiresAt: expiresAt === undefined ? undefined : new Date(Number(expiresAt) * 1000) };
}

class Transaction {
  constructor(store) {
    this.store = store;
    this.operations = [];
  }

  set(key, value, options) {
    this.operations.push({ tag: 'set', val: [key, toJson(value), setOptions(options, true)] });
    return this;
  }

  delete(key, { etag } = {}) {
    this.operations.push({ tag: 'delete', val: [key, etag] });
    return this;
  }

  commit() {
    call(stateCalls.transact, this.store, this.operations);
  }
}

export class PubSub {
  constructor(name) {
    this.name = name;
  }

  static open(name = 'pubsub') {
    return new PubSub(name);
  }

  publish(topic, value, metadata) {
    call(pubsubCalls.publish, this.name, topic, message({ value, metadata }));
  }

  publishMany(topic, messages) {
    const answers = call(pubsubCalls.publishMany, this.name, topic, messages.map(message));
    return answers.map(({ tag, val }) => (tag === 'ok' ? undefined : new DhowError(val.tag, val.val)));
  }

  publishBytes(topic, data, contentType, metadata) {
    call(pubsubCalls.publish, this.name, topic, { data, contentType, metadata: pairs(metadata) });
  }
}

function message({ value, metadata }) {
  return { data: toJson(value), contentType: 'application/json', metadata: pairs(metadata) };
}

export function invoke(appId, path, { method = 'GET', headers = {}, body, json } = {}) {
  const named = { ...headers };
  if (json !== undefined) named['content-type'] ??= 'application/json';
  const request = {
    method,
    path,
    headers: pairs(named).map(([name, value]) => [name, encode(value)]),
    body: json === undefined ? bytesOf(body) : toJson(json),
  };
  const answer = call(invokeCalls.call, appId, request);
  return {
    status: answer.status,
    headers: new Headers(answer.headers.map(([name, value]) => [name, decode(value)])),
    body: answer.body,
    text: () => decode(answer.body),
    json: () => fromJson(answer.body),
  };
}

export class Lock {
  constructor(store) {
    this.store = store;
  }

  static open(store = 'lockstore') {
    return new Lock(store);
  }

  with(resource, expirySeconds, work) {
    const owner = crypto.randomUUID();
    if (!this.tryLock(resource, owner, expirySeconds)) return { held: false };
    const unlock = () => this.unlock(resource, owner);
    let result;
    try {
      result = work();
    } catch (error) {
      unlock();
      throw error;
    }
    if (typeof result?.then === 'function') {
      return result.finally(unlock).then((value) => ({ held: true, value }));
    }
    unlock();
    return { held: true, value: result };
  }

  tryLock(resource, owner, expirySeconds) {
    return call(lockCalls.tryLock, this.store, resource, owner, expirySeconds);
  }

  unlock(resource, owner) {
    return call(lockCalls.unlock, this.store, resource, owner);
  }
}

export class Secrets {
  constructor(store) {
    this.store = store;
  }

  static open(store) {
    return new Secrets(store);
  }

  get(name, metadata) {
    const secret = call(secretsCalls.get, this.store, name, pairs(metadata));
    return secret && Object.fromEntries(secret);
  }

  value(name, metadata) {
    return this.get(name, metadata)?.[name];
  }

  all(metadata) {
    const secrets = call(secretsCalls.getAll, this.store, pairs(metadata));
    return Object.fromEntries(secrets.map(([name, secret]) => [name, Object.fromEntries(secret)]));
  }
}

export class Configuration {
  constructor(store) {
    this.store = store;
  }

  static open(store) {
    return new Configuration(store);
  }

  get(keys = [], metadata) {
    const items = call(configurationCalls.get, this.store, keys, pairs(metadata));
    return Object.fromEntries(items.map(({ key, value, version, metadata: told }) => [
      key,
      { value, version, metadata: Object.fromEntries(told) },
    ]));
  }

  value(key, metadata) {
    return this.get([key], metadata)[key]?.value;
  }
}

export class Binding {
  constructor(name) {
    this.name = name;
  }

  static open(name) {
    return new Binding(name);
  }

  invoke(operation, data, metadata) {
    const answer = call(bindingCalls.invoke, this.name, operation, bytesOf(data), pairs(metadata));
    return { data: answer.data, metadata: Object.fromEntries(answer.metadata) };
  }
}

export const jobs = {
  schedule(name, { schedule, dueTime, repeats, ttl, data, failurePolicy, overwrite = false } = {}) {
    const job = {
      name,
      schedule,
      dueTime,
      repeats,
      ttl,
      data: data === undefined ? undefined : JSON.stringify(data),
      failurePolicy: policy(failurePolicy),
    };
    call(jobsCalls.schedule, job, overwrite);
  },

  get(name) {
    const { schedule, dueTime, repeats, ttl, data } = call(jobsCalls.get, name);
    return { name, schedule, dueTime, repeats, ttl, data: data === undefined ? undefined : JSON.parse(data) };
  },

  delete(name) {
    call(jobsCalls.delete ?? jobsCalls._delete, name);
  },
};

function policy(chosen) {
  if (chosen === undefined) return undefined;
  if (chosen === 'drop') return { tag: 'drop' };
  return { tag: 'constant', val: { intervalMs: BigInt(chosen.intervalMs), maxRetries: chosen.maxRetries } };
}

export class Drop extends Error {}

// What a handler throws, in the words of the interface.
function refusal(error, refused) {
  return Object.assign(new Error(String(error?.message ?? error)), { payload: refused(String(error?.message ?? error)) });
}

function handler(work, event, refused) {
  return {
    handle(given) {
      const refuse = (error) => {
        throw refusal(error, (text) => refused(error, text));
      };
      try {
        const done = work(event(given));
        return typeof done?.then === 'function' ? done.then(undefined, refuse) : done;
      } catch (error) {
        return refuse(error);
      }
    },
  };
}

export function onMessage(work) {
  const event = (given) => ({
    ...given,
    attributes: Object.fromEntries(given.attributes),
    metadata: Object.fromEntries(given.metadata),
    text: () => decode(given.data),
    json: () => fromJson(given.data),
  });
  return handler(work, event, (error, val) => ({ tag: error instanceof Drop ? 'drop' : 'retry', val }));
}

export function onJob(work) {
  const event = (given) => ({ ...given, text: () => decode(given.data), json: () => fromJson(given.data) });
  return handler(work, event, (_, text) => text);
}

// A step of a workflow; what it throws is why the step failed.
export function onStep(work) {
  return {
    run(input) {
      const places = (list) => Object.fromEntries(list.map(({ name, path }) => [name, path]));
      try {
        const given = {
          workflow: input.workflow,
          step: input.step,
          parameters: Object.fromEntries(input.parameters.map(({ name, value }) => [name, value])),
          artifacts: places(input.artifacts),
          outputs: places(input.outputs),
        };
        const { result, parameters = {}, artifacts = {}, message = '' } = work(given) ?? {};
        return {
          result: result === undefined ? undefined : textOf(result),
          parameters: Object.entries(parameters).map(([name, value]) => ({ name, value: textOf(value) })),
          artifacts: Object.entries(artifacts).map(([name, path]) => ({ name, path })),
          message,
        };
      } catch (error) {
        console.error(error?.stack ?? String(error));
        throw String(error?.message ?? error);
      }
    },
  };
}

// Values of any kind become texts, as they are to Argo.
const textOf = (value) => (typeof value === 'string' ? value : JSON.stringify(value));

export function onBinding(work) {
  const event = (given) => ({
    ...given,
    metadata: Object.fromEntries(given.metadata),
    text: () => decode(given.data),
    json: () => fromJson(given.data),
  });
  return handler(work, event, (_, text) => text);
}
