//! A proxy-wasm module without any system interface; its allocator is exported as `malloc`.

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

struct Hello;

proxy_wasm::main! {{
    proxy_wasm::set_http_context(|_, _| Box::new(Hello));
}}

impl Context for Hello {}

impl HttpContext for Hello {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let path = self.get_http_request_header(":path").unwrap_or_default();
        self.send_http_response(200, vec![("x-path", path.as_str())], Some(b"hello\n"));
        Action::Pause
    }
}
