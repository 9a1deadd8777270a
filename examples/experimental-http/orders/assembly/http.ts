// HTTP requests through the functions of wasi_experimental_http.

// @ts-ignore: decorator
@external("wasi_experimental_http", "req")
declare function req(
  url: usize, urlLength: usize, method: usize, methodLength: usize, headers: usize, headersLength: usize,
  body: usize, bodyLength: usize, status: usize, handle: usize): u32;

// @ts-ignore: decorator
@external("wasi_experimental_http", "close")
declare function close(handle: u32): u32;

// @ts-ignore: decorator
@external("wasi_experimental_http", "header_get")
declare function header_get(
  handle: u32, name: usize, nameLength: usize, buffer: usize, bufferLength: usize, written: usize): u32;

// @ts-ignore: decorator
@external("wasi_experimental_http", "body_read")
declare function body_read(handle: u32, buffer: usize, bufferLength: usize, written: usize): u32;

/** What an open response can be asked for: one piece of its body at a time. */
const PIECE: i32 = 4096;

/** The numbers that the functions return, in words. */
const ERRORS: string[] = [
  "ok", "no such response", "no memory", "bad address", "buffer too small", "no such header", "not UTF-8",
  "this host is not granted", "bad method", "bad headers", "bad URL", "the request failed", "the host failed",
  "too many open responses",
];

/** A response that was read to its end. */
export class Response {
  constructor(public status: u16, public contentType: string, public body: string) {}
}

/** Sends a request and reads its whole response. Headers are lines `name: value`. Fails by ending the program. */
export function send(method: string, url: string, headers: string = "", body: string = ""): Response {
  const u = String.UTF8.encode(url), m = String.UTF8.encode(method);
  const h = String.UTF8.encode(headers), b = String.UTF8.encode(body);
  const status = new ArrayBuffer(2), handle = new ArrayBuffer(4);
  check(req(
    changetype<usize>(u), u.byteLength, changetype<usize>(m), m.byteLength, changetype<usize>(h), h.byteLength,
    changetype<usize>(b), b.byteLength, changetype<usize>(status), changetype<usize>(handle)));
  const open = load<u32>(changetype<usize>(handle));
  const response = new Response(load<u16>(changetype<usize>(status)), header(open, "content-type"), rest(open));
  check(close(open));
  return response;
}

function header(open: u32, name: string): string {
  const n = String.UTF8.encode(name), value = new ArrayBuffer(256), written = new ArrayBuffer(4);
  const found = header_get(
    open, changetype<usize>(n), n.byteLength, changetype<usize>(value), value.byteLength, changetype<usize>(written));
  if (found != 0) return "";
  return String.UTF8.decode(value.slice(0, load<u32>(changetype<usize>(written))));
}

function rest(open: u32): string {
  const piece = new ArrayBuffer(PIECE), written = new ArrayBuffer(4);
  // Decoded at the end: a piece may end within a character.
  let bytes = new Uint8Array(0);
  while (true) {
    check(body_read(open, changetype<usize>(piece), piece.byteLength, changetype<usize>(written)));
    const length = load<u32>(changetype<usize>(written));
    if (length == 0) break;
    const longer = new Uint8Array(bytes.length + length);
    longer.set(bytes);
    longer.set(Uint8Array.wrap(piece, 0, length), bytes.length);
    bytes = longer;
  }
  return String.UTF8.decode(bytes.buffer);
}

function check(error: u32): void {
  assert(error == 0, "HTTP: " + (error < <u32>ERRORS.length ? ERRORS[error] : error.toString()));
}
