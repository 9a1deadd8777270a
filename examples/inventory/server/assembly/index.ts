// Tells how many copies of a book the store `state_demo` knows: the body of a request is the book's name.

import { CALL_DATA, REQUEST_BODY, RESPONSE_BODY, malloc, read, state, write } from "./proxy";

export { malloc };

export function proxy_abi_version_0_2_0(): void {}

/** How requests name this function: Layotto asks for it when the module is loaded. */
export function proxy_get_id(): void {
  write(CALL_DATA, "id_2");
}

export function proxy_on_request_body(context: u32, size: u32, end: u32): u32 {
  write(RESPONSE_BODY, state("state_demo", read(REQUEST_BODY, size)));
  return 0;
}
