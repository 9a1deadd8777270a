//! An HTTP component of WASI 0.3 (asynchronous functions of the component model): one line for every request.

use wasip3::http::types::{ErrorCode, Request, Response};
use wasip3::http_compat::{http_from_wasi_request, http_into_wasi_response};

wasip3::http::service::export!(Hello);

struct Hello;

impl wasip3::exports::http::handler::Guest for Hello {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let request = http_from_wasi_request(request)?;
        http_into_wasi_response(http::Response::new(format!(
            "hello from WASI 0.3, {}\n",
            request.uri().path()
        )))
    }
}
