/** dhow's building blocks for JavaScript guests, over the calls of WIT package dhow:runtime. */

/** Names and values that go with a request, a message or an answer. */
export type Metadata = Record<string, string>;

/** Why a block did not do what it was asked; the text is for people and holds no secret. */
export type ErrorKind =
  /** The manifest does not grant it; the text says what to add. */
  | 'denied'
  /** There is no component, app or job of that name for this app. */
  | 'not-found'
  /** Somebody else was faster: the etag is not the stored one, or the name is taken. */
  | 'conflict'
  /** The request makes no sense; a repetition will not help. */
  | 'invalid'
  /** The component is not able to do this at all. */
  | 'unsupported'
  /** The component or app cannot be reached now; a later attempt may succeed. */
  | 'unavailable'
  /** It failed in a way that a repetition will not mend. */
  | 'failed';

/** What every call here may throw. */
export class DhowError extends Error {
  readonly kind: ErrorKind;
  constructor(kind: ErrorKind, text: string);
}

/** How to write; without any, over whatever is there, to stay. */
export interface SetOptions {
  /** Write only while the stored etag is this one; otherwise `conflict`. */
  etag?: string;
  /** Write only while the key is absent; otherwise `conflict`. */
  firstWrite?: boolean;
  /** The value disappears so many seconds after the write. */
  ttlSeconds?: number;
}

/** A value and what is known of it. */
export interface StateItem<T> {
  value: T;
  /** Its version; changes with every write. */
  etag: string;
  /** When it disappears by itself. */
  expiresAt?: Date;
}

/** A state store. Its keys are the app's own unless the component's `keyPrefix` says otherwise. Values are JSON. */
export class State {
  /** The store of this name (default `statestore`); whether there is one shows with the first call. */
  static open(store?: string): State;
  /** The value, or undefined when there is no such key. */
  get<T = any>(key: string): T | undefined;
  /** The value with its etag. */
  getItem<T = any>(key: string): StateItem<T> | undefined;
  /** The value as it is stored. */
  getBytes(key: string): StateItem<Uint8Array> | undefined;
  /** Writes a value as JSON. */
  set(key: string, value: unknown, options?: SetOptions): void;
  /** Writes bytes of any kind. */
  setBytes(key: string, bytes: Uint8Array, options?: SetOptions): void;
  /** Reads, changes and writes a value, again if somebody else wrote it in between; the new value. */
  update<T = any>(key: string, change: (before: T | undefined) => T): T;
  /** Deletes a key, with an etag only in that version. A key that is not there is no error. */
  delete(key: string, options?: { etag?: string }): void;
  /** Collects operations that `commit` carries out, all or none. */
  transaction(): Transaction;
  /** Keys, ascending; at most 1000. If there are more, ask for those after the last one. */
  keys(options?: { prefix?: string; after?: string; limit?: number }): { keys: string[]; more: boolean };
  /** Adds to the number that is stored, which nobody can come between; a missing key counts as 0. */
  increment(key: string, delta?: number): number;
  /** Searches values, in the language of Dapr's state API. */
  query<T = any>(query: object): { results: { key: string; value: T; etag: string }[]; token: string };
}

/** Operations that are carried out together. */
export interface Transaction {
  set(key: string, value: unknown, options?: SetOptions): this;
  delete(key: string, options?: { etag?: string }): this;
  /** Carries out all operations in order, or none. */
  commit(): void;
}

/** A broker. */
export class PubSub {
  /** The broker of this name (default `pubsub`). */
  static open(name?: string): PubSub;
  /** Publishes a value as JSON. When it returns, the broker has the message. */
  publish(topic: string, value: unknown, metadata?: Metadata): void;
  /** Publishes bytes of any kind. */
  publishBytes(topic: string, data: Uint8Array, contentType?: string, metadata?: Metadata): void;
  /** Publishes several values as JSON; the error of each, in their order, where there is one. */
  publishMany(topic: string, messages: { value: unknown; metadata?: Metadata }[]): (DhowError | undefined)[];
}

/** What another app answered. */
export interface Answer {
  status: number;
  headers: Headers;
  body: Uint8Array;
  text(): string;
  json<T = any>(): T;
}

/** Sends a request to another app and waits for the whole answer. That it answers 404 or 500 is an answer, no error. */
export function invoke(
  appId: string,
  path: string,
  options?: { method?: string; headers?: Record<string, string>; body?: string | Uint8Array; json?: unknown },
): Answer;

/** A lock store. */
export class Lock {
  /** The store of this name (default `lockstore`). */
  static open(store?: string): Lock;
  /** Works under a lock, which ends with the work, and after so many seconds at the latest. Does nothing if somebody
   * else holds it. */
  with<T>(resource: string, expirySeconds: number, work: () => Promise<T>):
    Promise<{ held: true; value: T }> | { held: false };
  with<T>(resource: string, expirySeconds: number, work: () => T): { held: true; value: T } | { held: false };
  /** Takes the lock; false when somebody holds it, be it the same owner. */
  tryLock(resource: string, owner: string, expirySeconds: number): boolean;
  /** Gives the lock back. */
  unlock(resource: string, owner: string): 'released' | 'not-held' | 'held-by-other';
}

/** A secret store. */
export class Secrets {
  static open(store: string): Secrets;
  /** The values of a secret by name; a secret of one value has its own name. */
  get(name: string, metadata?: Metadata): Record<string, string> | undefined;
  /** The value of a secret that has one. */
  value(name: string, metadata?: Metadata): string | undefined;
  /** All secrets that the app may read. */
  all(metadata?: Metadata): Record<string, Record<string, string>>;
}

/** A configuration store: values that operators change while apps run. */
export class Configuration {
  static open(store: string): Configuration;
  /** The values of these keys, or of all if none is named. Keys that do not exist are left out. */
  get(keys?: string[], metadata?: Metadata): Record<string, { value: string; version: string; metadata: Metadata }>;
  /** One value. */
  value(key: string, metadata?: Metadata): string | undefined;
}

/** An output binding. */
export class Binding {
  static open(name: string): Binding;
  /** Carries out an operation, such as `create` or `exec`. */
  invoke(operation: string, data?: string | Uint8Array, metadata?: Metadata): { data?: Uint8Array; metadata: Metadata };
}

/** A job has a schedule, a due time, or both. */
export interface JobOptions {
  /** Six-field cron (seconds first), `@every 5s`, `@daily` and the like. */
  schedule?: string;
  /** When it is first due: RFC 3339, a duration such as `90s`, or an ISO 8601 duration. */
  dueTime?: string;
  /** Triggered this many times, then gone. */
  repeats?: number;
  /** Gone after this time, in the forms of `dueTime`. */
  ttl?: string;
  /** Comes with each trigger, as JSON. */
  data?: unknown;
  /** When the app does not take a trigger; the default is three retries, a second apart. */
  failurePolicy?: 'drop' | { intervalMs: number; maxRetries?: number };
  /** Replaces a job of that name, which otherwise is a `conflict`. */
  overwrite?: boolean;
}

/** Work that is due later, kept durably. */
export const jobs: {
  schedule(name: string, options: JobOptions): void;
  get(name: string): Pick<JobOptions, 'schedule' | 'dueTime' | 'repeats' | 'ttl' | 'data'> & { name: string };
  /** Forgets a job; one that does not exist is no error. */
  delete(name: string): void;
};

/** Data that arrived. */
export interface Data {
  data: Uint8Array;
  contentType: string;
  text(): string;
  json<T = any>(): T;
}

/** A message, taken out of its CloudEvent. */
export interface Event extends Data {
  id: string;
  source: string;
  type: string;
  subject?: string;
  pubsub: string;
  topic: string;
  /** The path that the subscription's routes name for it. */
  path: string;
  /** The CloudEvent's other attributes. */
  attributes: Metadata;
  metadata: Metadata;
}

/** A job that is due. */
export interface Due extends Data {
  name: string;
}

/** An event of an input binding. */
export interface BindingEvent extends Data {
  name: string;
  metadata: Metadata;
}

/** Thrown by a handler of messages: it is over, and goes to the dead-letter topic if there is one. */
export class Drop extends Error {}

/** Takes messages: `export const topicHandler = onMessage(…)`. */
export function onMessage(work: (event: Event) => void | Promise<void>): { handle(event: unknown): void };

/** Takes jobs: `export const jobHandler = onJob(…)`. After an error the job's failure policy decides. */
export function onJob(work: (due: Due) => void | Promise<void>): { handle(due: unknown): void };

/** Takes events of input bindings: `export const bindingHandler = onBinding(…)`. After an error it comes again. */
export function onBinding(work: (event: BindingEvent) => void | Promise<void>): { handle(event: unknown): void };

/** What a step of a workflow is given. */
export interface StepInput {
  /** Name of the workflow. */
  workflow: string;
  /** Name of the step in it; different for each retry. */
  step: string;
  parameters: Record<string, string>;
  /** Artifacts, and the paths where they lie. */
  artifacts: Record<string, string>;
  /** Artifacts that are expected, and the paths where they are looked for. */
  outputs: Record<string, string>;
}

/** What a step yields. Values that are no text become JSON. */
export interface StepOutput {
  /** In the place of what was printed. */
  result?: unknown;
  parameters?: Record<string, unknown>;
  /** Artifacts that do not lie where the template says. */
  artifacts?: Record<string, string>;
  /** For people. */
  message?: string;
}

/** Makes the component a step of a workflow: `export const step = onStep(…)`. What it throws is why the step failed. */
export function onStep(work: (input: StepInput) => StepOutput | void): { run(input: unknown): unknown };
