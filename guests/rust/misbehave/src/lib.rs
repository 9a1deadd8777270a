//! Everything that a guest can do wrong, a route each: what a host must survive.
//!
//! | route | what it does |
//! |---|---|
//! | `/ok` | answers, to show that the host still serves |
//! | `/loop` | computes for ever, no host call |
//! | `/spin-start` | sends status, headers and `first`, then computes for ever |
//! | `/hang?ms=N` | waits, for an hour unless N says less, and answers |
//! | `/print?bytes=N` | prints N bytes to stdout in lines of 100, and answers |
//! | `/memory` | allocates and touches memory until it gets no more |
//! | `/stack` | recurses without end |
//! | `/trap` | executes `unreachable` |
//! | `/trap-mid-response` | the same after `first` was sent |
//! | `/never` | returns without an answer |
//! | `/twice` | answers twice |
//! | `/big?bytes=N` | a body of N bytes |
//! | `/handles` | takes host resources and never gives them back |
//! | `/requests?n=N&url=URL` | starts N requests at once and waits for none |
//! | `/exit` | ends the program with exit code 3 |
//! | `/panic` | panics |

use std::hint::black_box;

use wasip2::clocks::monotonic_clock;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam, Scheme,
};
use wasip2::io::streams::OutputStream;

struct Misbehave;

wasip2::http::proxy::export!(Misbehave);

impl wasip2::exports::http::incoming_handler::Guest for Misbehave {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/ok" => whole(out, 200, b"ok\n"),
            "/loop" => spin(),
            "/spin-start" => {
                let _open = begin(out, b"first");
                spin()
            }
            "/hang" => {
                let nanoseconds = number(query, "ms").map_or(3_600_000_000_000, |ms| ms as u64 * 1_000_000);
                monotonic_clock::subscribe_duration(nanoseconds).block();
                whole(out, 200, b"woke up\n");
            }
            "/print" => {
                let line = "x".repeat(99);
                for _ in 0..number(query, "bytes").unwrap_or(1000) / 100 {
                    println!("{line}");
                }
                whole(out, 200, b"printed\n");
            }
            "/memory" => {
                let mut kept = Vec::new();
                loop {
                    // Not zeroes: an untouched page would cost the host nothing.
                    kept.push(black_box(vec![1_u8; 1 << 20]));
                }
            }
            "/stack" => {
                black_box(deeper(1));
            }
            "/trap" => trap(),
            "/trap-mid-response" => {
                let _open = begin(out, b"first");
                trap()
            }
            "/never" => drop(out),
            "/twice" => {
                // SAFETY: none; naming a handle that the host has already taken back is the point.
                let again = unsafe { ResponseOutparam::from_handle(out.handle()) };
                whole(out, 200, b"once\n");
                whole(again, 200, b"twice\n");
            }
            "/big" => {
                let (body, stream) = begin(out, b"");
                let mut left = number(query, "bytes").unwrap_or(1 << 20);
                let piece = [b'x'; 4096];
                while left > 0 {
                    let length = left.min(piece.len());
                    if stream.blocking_write_and_flush(&piece[..length]).is_err() {
                        return;
                    }
                    left -= length;
                }
                drop(stream);
                let _ = OutgoingBody::finish(body, None);
            }
            "/handles" => loop {
                std::mem::forget(Fields::new());
            },
            "/requests" => {
                let url =
                    query.split_once("url=").map_or("http://localhost:3500/v1.0/healthz", |(_, url)| url);
                let rest = url.strip_prefix("http://").unwrap_or(url);
                let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
                let (mut open, mut refused) = (Vec::new(), 0);
                for _ in 0..number(query, "n").unwrap_or(10_000) {
                    let request = OutgoingRequest::new(Fields::new());
                    let _ = request.set_scheme(Some(&Scheme::Http));
                    let _ = request.set_authority(Some(authority));
                    let _ = request.set_path_with_query(Some(path));
                    match outgoing_handler::handle(request, None) {
                        Ok(future) => open.push(future),
                        Err(_) => refused += 1,
                    }
                }
                whole(out, 200, format!("{} started, {refused} refused\n", open.len()).as_bytes());
            }
            "/exit" => std::process::exit(3),
            "/panic" => panic!("asked to"),
            _ => whole(out, 404, b"no such misdeed\n"),
        }
    }
}

fn begin(out: ResponseOutparam, first: &[u8]) -> (OutgoingBody, OutputStream) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("asked once");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("asked once");
    let _ = stream.blocking_write_and_flush(first);
    (body, stream)
}

fn whole(out: ResponseOutparam, status: u16, text: &[u8]) {
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).expect("a valid status");
    let body = response.body().expect("asked once");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("asked once");
    let _ = stream.blocking_write_and_flush(text);
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

fn spin() -> ! {
    let mut n = 0_u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

#[expect(unconditional_recursion, reason = "a stack overflow is what the route is for")]
fn deeper(n: u64) -> u64 {
    let frame = black_box([n; 64]);
    deeper(n + 1) + black_box(frame)[63]
}

fn trap() -> ! {
    core::arch::wasm32::unreachable()
}

fn number(query: &str, name: &str) -> Option<usize> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}
