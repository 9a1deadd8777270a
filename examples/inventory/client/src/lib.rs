//! Tells how many copies of a book there are, by asking the function `id_2`.
//!
//! A request `?name=book1` is answered `There are 100 inventories for book1.`

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, LogLevel};
use std::ptr::null_mut;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_http_context(|_, _| Box::new(Client));
}}

/// How requests name this function: Layotto asks for it when the module is loaded.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_get_id() {
    let id = b"id_1";
    if let Err(status) = hostcalls::set_buffer(BufferType::CallData, 0, id.len(), id) {
        panic!("telling the id: {status:?}");
    }
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    /// Layotto's call to another function.
    fn proxy_invoke_service(
        id: *const u8,
        id_size: usize,
        method: *const u8,
        method_size: usize,
        data: *const u8,
        data_size: usize,
        answer: *mut *mut u8,
        answer_size: *mut usize,
    ) -> u32;
}

struct Client;

impl Context for Client {}

impl HttpContext for Client {
    /// With nothing behind the headers there is no name.
    fn on_http_request_headers(&mut self, _: usize, is_all: bool) -> Action {
        if is_all { self.no_name() } else { Action::Continue }
    }

    /// The body is that of the request, or else its query string.
    fn on_http_request_body(&mut self, body_size: usize, _: bool) -> Action {
        let body = self.get_http_request_body(0, body_size).unwrap_or_default();
        let body = String::from_utf8_lossy(&body);
        let name = body.split('&').find_map(|pair| pair.strip_prefix("name="));
        let answer = match name.map(|name| (name, invoke("id_2", name))) {
            Some((name, Ok(count))) => format!("There are {count} inventories for {name}."),
            Some((_, Err(status))) => {
                self.send_http_response(502, vec![], Some(format!("id_2 failed: {status}\n").as_bytes()));
                return Action::Pause;
            }
            None => return self.no_name(),
        };
        self.set_http_response_body(0, answer.len(), answer.as_bytes());
        Action::Continue
    }
}

impl Client {
    fn no_name(&self) -> Action {
        self.send_http_response(400, vec![], Some(b"which book? name it: ?name=book1\n"));
        Action::Pause
    }
}

/// The answer of another function, or the status of the call.
fn invoke(id: &str, data: &str) -> Result<String, u32> {
    let (mut answer, mut size) = (null_mut(), 0);
    // SAFETY: all addresses and lengths are those of slices and variables that live through the call.
    let status = unsafe {
        let (id, method, data) = (id.as_bytes(), b"", data.as_bytes());
        proxy_invoke_service(
            id.as_ptr(),
            id.len(),
            method.as_ptr(),
            method.len(),
            data.as_ptr(),
            data.len(),
            &mut answer,
            &mut size,
        )
    };
    match status {
        0 if answer.is_null() => Ok(String::new()),
        // SAFETY: the host wrote `size` bytes to memory that it took from this module's allocator.
        0 => Ok(String::from_utf8_lossy(&unsafe { Vec::from_raw_parts(answer, size, size) }).into_owned()),
        status => Err(status),
    }
}
