// What this function needs of the proxy-wasm ABI and of Layotto's additions to it.

// @ts-ignore: decorator
@external("env", "proxy_get_buffer_bytes")
declare function proxy_get_buffer_bytes(kind: u32, start: u32, size: u32, data: usize, dataSize: usize): u32;

// @ts-ignore: decorator
@external("env", "proxy_set_buffer_bytes")
declare function proxy_set_buffer_bytes(kind: u32, start: u32, size: u32, data: usize, dataSize: u32): u32;

// @ts-ignore: decorator
@external("env", "proxy_get_state")
declare function proxy_get_state(
  store: usize, storeSize: u32, key: usize, keySize: u32, value: usize, valueSize: usize): u32;

export const REQUEST_BODY: u32 = 0;
export const RESPONSE_BODY: u32 = 1;
/** Where a function writes its id. */
export const CALL_DATA: u32 = 8;

/** The host takes memory for what it returns with this function. */
export function malloc(size: u32): usize {
  return heap.alloc(size);
}

export function read(kind: u32, size: u32): string {
  const place = new StaticArray<u32>(2), at = changetype<usize>(place);
  check("reading a buffer", proxy_get_buffer_bytes(kind, 0, size, at, at + 4));
  return take(place);
}

export function write(kind: u32, text: string): void {
  const bytes = String.UTF8.encode(text);
  check("writing a buffer", proxy_set_buffer_bytes(kind, 0, bytes.byteLength, changetype<usize>(bytes), bytes.byteLength));
}

/** A value of a state store; nothing is the empty text. */
export function state(store: string, key: string): string {
  const s = String.UTF8.encode(store), k = String.UTF8.encode(key);
  const place = new StaticArray<u32>(2), at = changetype<usize>(place);
  check("reading state", proxy_get_state(
    changetype<usize>(s), s.byteLength, changetype<usize>(k), k.byteLength, at, at + 4));
  return take(place);
}

/** The text that the host left: an address and a size. */
function take(place: StaticArray<u32>): string {
  if (place[0] == 0) return "";
  const text = String.UTF8.decodeUnsafe(place[0], place[1]);
  heap.free(place[0]);
  return text;
}

function check(what: string, status: u32): void {
  assert(status == 0, what + ": status " + status.toString());
}
