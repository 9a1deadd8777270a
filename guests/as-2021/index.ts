// A program as those for wasi-experimental-http were written in 2021: asc 0.18 and as-wasi 0.4, no `_start`, since all
// of it runs in the module's start function. It saves a value with Dapr's HTTP API, reads it back and deletes it.

import { Console } from "as-wasi";
import { JSON } from "assemblyscript-json";

// @ts-ignore: decorator
@external("wasi_experimental_http", "req")
declare function req(
  url: usize, urlLength: usize, method: usize, methodLength: usize, headers: usize, headersLength: usize,
  body: usize, bodyLength: usize, status: usize, handle: usize): u32;

// @ts-ignore: decorator
@external("wasi_experimental_http", "close")
declare function close(handle: u32): u32;

// @ts-ignore: decorator
@external("wasi_experimental_http", "body_read")
declare function body_read(handle: u32, buffer: usize, bufferLength: usize, written: usize): u32;

const STATE = "http://127.0.0.1:3500/v1.0/state/statestore";

// Eight bytes each, of which the host writes two or four.
const STATUS: usize = memory.data(8);
const HANDLE: usize = memory.data(8);
const WRITTEN: usize = memory.data(8);

let status: u32 = 0;

function send(method: string, url: string, headers: string, body: string): string {
  const u = String.UTF8.encode(url), m = String.UTF8.encode(method);
  const h = String.UTF8.encode(headers), b = String.UTF8.encode(body);
  const error = req(
    changetype<usize>(u), u.byteLength, changetype<usize>(m), m.byteLength, changetype<usize>(h), h.byteLength,
    changetype<usize>(b), b.byteLength, STATUS, HANDLE);
  assert(error == 0, "req: " + error.toString());
  // More than was written: what lies above must still be zero.
  status = load<u32>(STATUS);
  const handle = load<u32>(HANDLE);
  let text = "";
  const piece = new ArrayBuffer(7);
  for (;;) {
    assert(body_read(handle, changetype<usize>(piece), piece.byteLength, WRITTEN) == 0, "body_read");
    if (load<u32>(WRITTEN) == 0) break;
    text += String.UTF8.decode(piece.slice(0, load<u32>(WRITTEN)));
  }
  assert(close(handle) == 0, "close");
  return text;
}

function isNamed(found: JSON.Str | null, name: string): bool {
  return found != null && (<JSON.Str>found).valueOf() == name;
}

function counts(found: JSON.Integer | null, count: i64): bool {
  return found != null && (<JSON.Integer>found).valueOf() == count;
}

send("POST", STATE, "Content-Type: application/json\n", '[{"key": "tool", "value": {"name": "saw", "teeth": 123}}]');
const saved = status == 204;
const tool = <JSON.Obj>JSON.parse(send("GET", STATE + "/tool", "", ""));
const name = tool.getString("name"), teeth = tool.getInteger("teeth");
const found = status == 200 && isNamed(name, "saw") && counts(teeth, 123);
// So the client of that time spelt the method.
send("DELET", STATE + "/tool", "", "");
const deleted = status == 204;
send("GET", STATE + "/tool", "", "");
const gone = status == 204;
Console.log(saved && found && deleted && gone ? "Test successfully!" : "Test failed!");
