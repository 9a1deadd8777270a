//! A proxy-wasm module made with the SDK. As an app its paths try the ABI out; configured as `filter NAME` it leaves its
//! name on what passes.

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, LogLevel, MapType, MetricType, Status};
use std::time::Duration;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

#[derive(Default)]
struct Root {
    config: String,
}

struct Stream {
    /// The name that it leaves as a filter.
    name: Option<String>,
    path: String,
    /// What came on a stream of gRPC.
    streamed: String,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let config = self.get_plugin_configuration().unwrap_or_default();
        assert_eq!(config.len(), size);
        self.config = String::from_utf8_lossy(&config).into_owned();
        if self.config == "refuse" {
            return false;
        }
        if self.config == "tick" {
            self.set_tick_period(Duration::from_millis(5));
            self.register_shared_queue("jobs");
        }
        true
    }

    fn on_tick(&mut self) {
        let (value, cas) = self.get_shared_data("ticks");
        let ticks = value.and_then(|value| value.try_into().ok()).map_or(0, u32::from_le_bytes);
        let _ = self.set_shared_data("ticks", Some(&(ticks + 1).to_le_bytes()), cas);
    }

    fn on_queue_ready(&mut self, queue: u32) {
        if let Ok(Some(job)) = self.dequeue_shared_queue(queue) {
            let _ = self.set_shared_data("job", Some(&job), None);
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        let name = self.config.strip_prefix("filter ").map(str::to_owned);
        Some(Box::new(Stream { name, path: String::new(), streamed: String::new() }))
    }
}

impl Context for Stream {
    fn on_http_call_response(&mut self, _: u32, headers: usize, body: usize, trailers: usize) {
        let status = self.get_http_call_response_header(":status").unwrap_or_default();
        let text = self.get_http_call_response_body(0, body).unwrap_or_default();
        let text = format!("{} {status} {trailers} {}", headers > 0, String::from_utf8_lossy(&text));
        match &self.name {
            Some(_) => self.resume_http_request(),
            None => self.answer(&text),
        }
    }

    fn on_grpc_call_response(&mut self, _: u32, status: u32, size: usize) {
        let message = self.get_grpc_call_response_body(0, size).unwrap_or_default();
        self.answer(&format!("grpc {status} {}", message.escape_ascii()));
    }

    fn on_grpc_stream_initial_metadata(&mut self, _: u32, count: u32) {
        self.streamed.push_str(&format!("metadata {} ", count > 0));
    }

    fn on_grpc_stream_message(&mut self, _: u32, size: usize) {
        let message = self.get_grpc_stream_message(0, size).unwrap_or_default();
        self.streamed.push_str(&format!("message {} ", message.escape_ascii()));
    }

    fn on_grpc_stream_trailing_metadata(&mut self, _: u32, _: u32) {
        self.streamed.push_str("trailers ");
    }

    fn on_grpc_stream_close(&mut self, _: u32, status: u32) {
        self.answer(&format!("{}closed {status}", self.streamed));
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        self.path = self.get_http_request_header(":path").unwrap_or_default();
        if let Some(name) = &self.name {
            self.add_http_request_header("x-passed", name);
            if self.path == format!("/denied-by-{name}") {
                self.send_http_response(403, vec![("x-denied", "yes")], Some(b"denied\n"));
                return Action::Pause;
            }
            if self.path == "/echo?ask" {
                return self.call("", "localhost:3500", "/v1.0/healthz");
            }
            return Action::Continue;
        }
        self.route()
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        assert!(end);
        let body = self.get_http_request_body(0, size).unwrap_or_default();
        if self.name.is_some() {
            if self.path == "/echo?change" {
                self.set_http_request_body(0, size, b"[changed by a filter]");
            }
            return Action::Continue;
        }
        self.answer(&format!("{size} {}", String::from_utf8_lossy(&body)));
        Action::Pause
    }

    fn on_http_request_trailers(&mut self, count: usize) -> Action {
        self.add_http_request_trailer("x-count", &count.to_string());
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        if let Some(name) = self.name.clone() {
            self.add_http_response_header("x-returned", &name);
            if self.path == "/teapot" {
                self.set_http_response_header(":status", Some("418"));
            }
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, _: bool) -> Action {
        if self.path == "/echo?change" {
            let body = self.get_http_response_body(0, size).unwrap_or_default();
            self.set_http_response_body(0, size, &body.to_ascii_uppercase());
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        if self.path == "/logged" {
            log(&format!("logged {}", self.get_http_request_header(":method").unwrap_or_default()));
        }
    }
}

impl Stream {
    fn route(&mut self) -> Action {
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let query = query.to_owned();
        match path {
            "/headers" => {
                let mut headers = self.get_http_request_headers();
                headers.sort();
                let lines: Vec<String> =
                    headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
                self.answer(&lines.join("\n"));
            }
            "/body" => return Action::Continue,
            // UPSTREAM, or UPSTREAM&PATH.
            "/call" => {
                let (upstream, path) = query.split_once('&').unwrap_or((&query, "/headers"));
                return self.call(upstream, "elsewhere.example", path);
            }
            "/runtime" => return self.call("", "localhost:3500", "/v1.0/healthz"),
            "/grpc" => {
                // UPSTREAM, or UPSTREAM&SERVICE&METHOD with an empty message.
                let mut parts = query.split('&');
                let mut part = |otherwise| parts.next().unwrap_or(otherwise).to_owned();
                let (upstream, service, method) = (part(""), part("a.Service"), part("Say"));
                let message: &[u8] = if service == "a.Service" { b"hi" } else { b"" };
                let limit = Duration::from_secs(5);
                let call =
                    self.dispatch_grpc_call(&upstream, &service, &method, vec![], Some(message), limit);
                match call {
                    Ok(_) => return Action::Pause,
                    Err(status) => self.answer(&format!("refused {status:?}")),
                }
            }
            "/stream" => {
                // UPSTREAM&SERVICE&METHOD; an empty message is the only one.
                let mut parts = query.split('&');
                let mut part = || parts.next().unwrap_or_default().to_owned();
                let (upstream, service, method) = (part(), part(), part());
                match self.open_grpc_stream(&upstream, &service, &method, vec![("x-from", b"guest")]) {
                    Ok(stream) => {
                        self.send_grpc_stream_message(stream, Some(b""), true);
                        return Action::Pause;
                    }
                    Err(status) => self.answer(&format!("refused {status:?}")),
                }
            }
            "/shared" => {
                let (_, before) = self.get_shared_data("key");
                let first = self.set_shared_data("key", Some(b"one"), before);
                let stale = self.set_shared_data("key", Some(b"two"), Some(u32::MAX));
                let (value, _) = self.get_shared_data("key");
                let value = String::from_utf8_lossy(&value.unwrap_or_default()).into_owned();
                self.answer(&format!("{first:?} {stale:?} {value}"));
            }
            "/enqueue" => match self.resolve_shared_queue(&query, "jobs") {
                Some(queue) => {
                    let put = self.enqueue_shared_queue(queue, Some(b"work"));
                    self.answer(&format!("{put:?}"));
                }
                None => self.answer("no queue"),
            },
            "/job" | "/ticks" => {
                let (value, _) = self.get_shared_data(path.trim_start_matches('/'));
                self.answer(&format!("{:?}", value.map(|value| value.escape_ascii().to_string())));
            }
            "/metric" => {
                let id = hostcalls::define_metric(MetricType::Counter, "calls").unwrap();
                hostcalls::increment_metric(id, 2).unwrap();
                let unknown = hostcalls::get_metric(99);
                self.answer(&format!("{:?} {unknown:?}", hostcalls::get_metric(id)));
            }
            "/property" => {
                let parts: Vec<&str> = query.split('.').collect();
                self.set_property(vec!["own"], Some(b"mine"));
                let value = self.get_property(parts);
                self.answer(&format!("{:?}", value.map(|value| value.escape_ascii().to_string())));
            }
            "/foreign" => {
                let answer = self.call_foreign_function("none", Some(b"x"));
                self.answer(&format!("{answer:?}"));
            }
            "/now" => {
                let now = self.get_current_time();
                self.answer(&format!("{}", now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()));
            }
            "/absent" => {
                let trailers = self.get_http_request_trailers().len();
                let maps = [MapType::HttpResponseHeaders, MapType::HttpCallResponseHeaders]
                    .map(|map| hostcalls::get_map_value(map, "none").unwrap().is_none());
                let body = hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, 10).unwrap();
                self.answer(&format!("{trailers} {maps:?} {body:?}"));
            }
            "/status" => {
                hostcalls::set_map_value(MapType::HttpResponseHeaders, ":status", Some("202")).unwrap();
                hostcalls::add_map_value(MapType::HttpResponseHeaders, "x-one", "1").unwrap();
                hostcalls::set_buffer(BufferType::HttpResponseBody, 0, 0, b"written").unwrap();
            }
            "/panic" => panic!("as asked"),
            "/pause" => return Action::Pause,
            "/loop" => loop {
                std::hint::black_box(());
            },
            "/close" => self.reset_http_request(),
            "/nothing" => {}
            _ => self.answer("hello"),
        }
        Action::Continue
    }

    fn call(&mut self, upstream: &str, authority: &str, path: &str) -> Action {
        let headers =
            vec![(":method", "GET"), (":path", path), (":authority", authority), ("x-from", "guest")];
        match self.dispatch_http_call(upstream, headers, None, vec![], Duration::from_secs(5)) {
            Ok(_) => Action::Pause,
            Err(Status::InternalFailure) => {
                self.answer("refused");
                Action::Pause
            }
            Err(status) => {
                self.answer(&format!("{status:?}"));
                Action::Pause
            }
        }
    }

    fn answer(&self, text: &str) {
        self.send_http_response(200, vec![("content-type", "text/plain")], Some(text.as_bytes()));
    }
}

fn log(text: &str) {
    hostcalls::log(LogLevel::Warn, text).unwrap();
}
