//! An HTTP component of WASI 0.3 (asynchronous functions of the component model): one line for every request.
//! `/cut` and `/hang` send a line and never end their body: one traps, the other waits.

use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::http_compat::{http_from_wasi_request, http_into_wasi_response};
use wasip3::{wit_bindgen, wit_future, wit_stream};

wasip3::http::service::export!(Hello);

struct Hello;

impl wasip3::exports::http::handler::Guest for Hello {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        if let how @ ("/cut" | "/hang") = path.as_str() {
            return Ok(unfinished(how == "/cut"));
        }
        let request = http_from_wasi_request(request)?;
        http_into_wasi_response(http::Response::new(format!(
            "hello from WASI 0.3, {}\n",
            request.uri().path()
        )))
    }
}

fn unfinished(traps: bool) -> Response {
    let (mut body, reader) = wit_stream::new();
    let (trailers, trailers_reader) = wit_future::new(|| Ok(None));
    let (response, _) = Response::new(Fields::new(), Some(reader), trailers_reader);
    wit_bindgen::spawn_local(async move {
        body.write_all(b"first line\n".to_vec()).await;
        if traps {
            // The line is on its way by then.
            wait_for(50_000_000).await;
            core::arch::wasm32::unreachable();
        }
        wait_for(600_000_000_000).await;
        drop((body, trailers));
    });
    response
}
