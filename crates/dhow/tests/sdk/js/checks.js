// Checks that print a line each. A program registers them, runs them all, and fails if one of them did.

const assert = require("node:assert/strict");

const PATIENCE = 1000 * Number(process.env.CHECK_PATIENCE ?? 60);
const checks = [];

function check(name, body) {
  checks.push([name, body]);
}

// Afterwards `last` is called; it has to make somebody end this program.
async function run(last) {
  let failed = 0;
  for (const [name, body] of checks) {
    try {
      await within(name, Promise.resolve().then(body));
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED ${name}\n${error?.stack ?? error}`);
    }
  }
  console.log(`${checks.length} checks, ${failed} failed`);
  if (last && !failed) {
    await within("the end", last());
    setTimeout(() => process.exit(2), PATIENCE);
    return;
  }
  // Servers and channels do not keep the program.
  process.exit(failed ? 1 : 0);
}

function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${PATIENCE} ms`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// What the promise was rejected with; it has to be.
async function rejected(promise) {
  let value;
  try {
    value = await promise;
  } catch (error) {
    return error;
  }
  throw new Error(`not refused, but ${JSON.stringify(value)}`);
}

// What `ask` answers as soon as it is something.
async function eventually(ask) {
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function contains(text, part) {
  assert.ok(String(text).includes(part), `${JSON.stringify(part)} is not in ${JSON.stringify(String(text))}`);
}

// What arrived, and a way to wait for more.
class Seen {
  items = [];
  waiting = [];

  add(item) {
    this.items.push(item);
    this.waiting = this.waiting.filter(({ count, resolve }) => {
      if (this.items.length < count) return true;
      resolve([...this.items]);
      return false;
    });
  }

  wait(count = 1) {
    if (this.items.length >= count) return Promise.resolve([...this.items]);
    return new Promise((resolve) => this.waiting.push({ count, resolve }));
  }
}

module.exports = { assert, check, contains, eventually, rejected, run, Seen };
