//! A filter that adds one header to each response.

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

proxy_wasm::main! {{
    proxy_wasm::set_http_context(|_, _| Box::new(Mark));
}}

struct Mark;

impl Context for Mark {}

impl HttpContext for Mark {
    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.add_http_response_header("x-marked", "1");
        Action::Continue
    }
}
