//! A body in 200 writes of 20 bytes each, as `write!` into an unbuffered stream makes them: what a host
//! does with many small writes. The guest flushes once, when the body is complete.

use std::io::Write;

use wasip2::http::proxy::export;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

const WRITES: usize = 200;
const PIECE: &[u8; 20] = b"twenty bytes of body";

struct Chunky;

export!(Chunky);

impl wasip2::exports::http::incoming_handler::Guest for Chunky {
    fn handle(_request: IncomingRequest, out: ResponseOutparam) {
        let response = OutgoingResponse::new(Fields::new());
        let Ok(body) = response.body() else { return };
        ResponseOutparam::set(out, Ok(response));
        let Ok(mut stream) = body.write() else { return };
        for _ in 0..WRITES {
            if stream.write_all(PIECE).is_err() {
                return;
            }
        }
        drop(stream);
        // A body that cannot be finished reaches the client as a broken transfer, which the bench counts.
        let _ = OutgoingBody::finish(body, None);
    }
}
