//! Bindings against what they are for: the clock, files, an HTTP server.

use async_trait::async_trait;
use bytes::Bytes;
use dhow_blocks::binding::{Binding, BindingEvent, BindingRequest, BindingResponse};
use dhow_blocks::conformance::{Runtime, binding};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Metadata, Outcome};
use dhow_providers::registry::{ComponentSpec, OpenContext, OpenError, Opened, open};
use std::sync::Arc;
use std::time::Duration;

const TOKIO: Runtime = Runtime {
    spawn: |task| drop(tokio::spawn(task)),
    sleep: |duration| Box::pin(tokio::time::sleep(duration)),
};

const PATIENCE: Duration = Duration::from_secs(30);

async fn try_open(component_type: &str, metadata: &[(&str, &str)]) -> Result<Arc<dyn Binding>, OpenError> {
    let component = ComponentSpec {
        name: "binding".to_owned(),
        component_type: component_type.to_owned(),
        version: "v1".to_owned(),
        metadata: metadata.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect(),
    };
    match open(component, OpenContext::default()).await? {
        Opened::Binding(binding) => Ok(binding),
        _ => panic!("{component_type} is no binding"),
    }
}

async fn operate(
    binding: &dyn Binding,
    operation: &str,
    data: &str,
    metadata: &[(&str, &str)],
) -> Result<BindingResponse, BlockError> {
    let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let data = Bytes::copy_from_slice(data.as_bytes());
    binding.invoke(BindingRequest { operation: operation.to_owned(), data, metadata }).await
}

mod cron {
    use super::*;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

    struct Events(UnboundedSender<BindingEvent>);

    #[async_trait]
    impl Handler<BindingEvent> for Events {
        async fn handle(&self, event: BindingEvent) -> Outcome {
            let _ = self.0.send(event);
            Outcome::Again
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn keeps_the_promises() {
        let open = || async { try_open("bindings.cron", &[("schedule", "@every 50ms")]).await.unwrap() };
        binding::suite("bindings.cron", TOKIO, binding::Traits::default(), open).await.assert_passed();
    }

    #[tokio::test]
    async fn strikes_every_second() {
        let fields = [("schedule", "* * * * * *"), ("direction", "input")];
        let cron = try_open("bindings.cron", &fields).await.unwrap();
        let (sender, mut events) = unbounded_channel();
        let running = cron.read(Arc::new(Events(sender))).await.unwrap();
        let mut times = Vec::new();
        for _ in 0..2 {
            let event = tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
            assert!(event.data.is_empty());
            assert_eq!(event.metadata["timeZone"], "Local");
            times.push(event.metadata["readTimeUTC"][..19].to_owned());
        }
        assert!(times[0] < times[1], "an event that was not taken is not repeated: {times:?}");
        running.stop().await;
    }

    #[tokio::test]
    async fn schedules_are_checked() {
        for schedule in ["", "* * * *", "@never", "61 * * * * *"] {
            let error = try_open("bindings.cron", &[("schedule", schedule)]).await.err().unwrap();
            assert!(error.to_string().contains("schedule"), "{error}");
        }
        for schedule in ["@daily", "*/5 * * * *", "0 30 8 * * MON-FRI", "TZ=Asia/Tokyo 0 8 * * *"] {
            assert!(try_open("bindings.cron", &[("schedule", schedule)]).await.is_ok(), "{schedule}");
        }
    }
}

mod local_storage {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    async fn open_in(root: &Path) -> Arc<dyn Binding> {
        try_open("bindings.localstorage", &[("rootPath", root.to_str().unwrap())]).await.unwrap()
    }

    async fn text(binding: &dyn Binding, name: &str) -> String {
        let data = operate(binding, "get", "", &[("fileName", name)]).await.unwrap().data.unwrap();
        String::from_utf8(data.to_vec()).unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn keeps_the_promises() {
        let folder = tempfile::tempdir().unwrap();
        let open = || open_in(folder.path());
        let traits = binding::Traits { key_field: Some("fileName"), ..binding::Traits::default() };
        binding::suite("bindings.localstorage", TOKIO, traits, open).await.assert_passed();
    }

    #[tokio::test]
    async fn answers_as_dapr_does() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("new/root");
        let files = open_in(&root).await;
        let files = &*files;
        let json = |response: BindingResponse| -> serde_json::Value {
            serde_json::from_slice(&response.data.unwrap()).unwrap()
        };
        assert_eq!(json(operate(files, "list", "", &[]).await.unwrap()), serde_json::json!([]));
        // Quoted text, base64, and names with folders; a slash before them means nothing.
        for (name, kept, data, expected) in [
            ("plain.txt", "plain.txt", "some text", "some text"),
            ("quoted.txt", "quoted.txt", "\"some text\"", "some text"),
            ("sub/base64.txt", "sub/base64.txt", "\"aGVsbG8=\"", "hello"),
            ("/./sub/deep/x", "sub/deep/x", "x", "x"),
        ] {
            let answer = json(operate(files, "create", data, &[("fileName", name)]).await.unwrap());
            assert_eq!(answer["fileName"], kept);
            assert_eq!(text(files, name).await, expected, "{name}");
        }
        let unnamed = json(operate(files, "create", "x", &[]).await.unwrap());
        let unnamed = unnamed["fileName"].as_str().unwrap();
        assert_eq!(unnamed.len(), 36, "a UUID");
        operate(files, "delete", "", &[("fileName", unnamed)]).await.unwrap();
        let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
        let all = ["plain.txt", "quoted.txt", "sub/base64.txt", "sub/deep/x"].map(path);
        assert_eq!(json(operate(files, "list", "", &[]).await.unwrap()), serde_json::json!(all));
        let sub = json(operate(files, "list", "", &[("filename", "sub")]).await.unwrap());
        assert_eq!(sub, serde_json::json!(all[2..]));
        let gone = operate(files, "get", "", &[("fileName", "absent")]).await.unwrap_err().to_string();
        assert_eq!(gone, format!("file not found: {}", path("absent")));
        for (operation, name) in [
            ("list", "plain.txt"),
            ("list", "absent"),
            ("get", "sub"),
            ("delete", "absent"),
            ("delete", "sub"),
        ] {
            let answer = operate(files, operation, "", &[("fileName", name)]).await;
            assert!(matches!(answer, Err(BlockError::Failed { .. })), "{operation} {name}: {answer:?}");
        }
        for operation in ["get", "delete"] {
            let answer = operate(files, operation, "", &[]).await;
            assert!(matches!(answer, Err(BlockError::Invalid { .. })), "{operation}: {answer:?}");
        }
    }

    #[tokio::test]
    async fn no_name_leads_out() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "hunter2").unwrap();
        symlink(&outside, root.join("folder")).unwrap();
        symlink(outside.join("secret"), root.join("file")).unwrap();
        symlink("../outside/secret", root.join("relative")).unwrap();
        symlink(outside.join("new"), root.join("dangling")).unwrap();
        symlink("/dev/zero", root.join("endless")).unwrap();
        fs::write(root.join("inside"), "fine").unwrap();
        symlink("inside", root.join("link")).unwrap();
        let files = open_in(&root).await;
        let files = &*files;
        assert_eq!(text(files, "link").await, "fine");
        for name in [
            "../outside/secret",
            "..",
            "a/../../outside/secret",
            "folder/secret",
            "folder/new",
            "file",
            "relative",
            "dangling",
            "endless",
            "a\0b",
            "/../outside/secret",
        ] {
            for operation in ["create", "get", "list", "delete"] {
                // A link itself may be deleted, and is not its target.
                if operation == "delete" && !name.contains('/') && name != ".." && !name.contains('\0') {
                    continue;
                }
                let answer = operate(files, operation, "x", &[("fileName", name)]).await;
                let error = answer.expect_err(name).to_string();
                assert!(!error.contains("hunter2"), "{error}");
            }
        }
        assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "hunter2");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "something was written outside");
        operate(files, "delete", "", &[("fileName", "file")]).await.unwrap();
        assert!(outside.join("secret").exists());
        let listed = operate(files, "list", "", &[]).await.unwrap().data.unwrap();
        assert!(!String::from_utf8_lossy(&listed).contains("secret"), "{listed:?}");
    }

    #[tokio::test]
    async fn roots() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        symlink("/proc", &link).unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for root in [
            "",
            "/proc",
            "/proc/self/x",
            "/sys",
            "/boot/x",
            "/dev/shm/x",
            "/var/run/secrets/x",
            link.to_str().unwrap(),
            file.to_str().unwrap(),
        ] {
            let opened = try_open("bindings.localstorage", &[("rootPath", root)]).await;
            assert!(opened.is_err(), "{root}");
        }
    }
}

#[cfg(feature = "http")]
mod http_server {
    use super::*;
    use http::{HeaderMap, Method, Request, Response, StatusCode};
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::server::conn::auto;
    use std::convert::Infallible;
    use std::net::SocketAddr;
    use tokio::net::TcpListener;

    /// A server that answers with what it was asked, or as the path says.
    async fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service_fn(answer);
                let builder = auto::Builder::new(TokioExecutor::new());
                tokio::spawn(
                    async move { drop(builder.serve_connection(TokioIo::new(socket), service).await) },
                );
            }
        });
        address
    }

    async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = head.uri.path().to_owned();
        let mut response = Response::new(Full::default());
        if let Some(status) = path.strip_prefix("/base/status/") {
            *response.status_mut() = status.parse::<StatusCode>().unwrap();
        } else if let Some(rest) = path.strip_prefix("/base/to/") {
            let (status, target) = rest.split_once('/').unwrap();
            *response.status_mut() = status.parse::<StatusCode>().unwrap();
            let target = head.uri.query().map_or(format!("/base/{target}"), str::to_owned);
            response.headers_mut().insert("location", target.parse().unwrap());
        } else if path == "/base/loop" {
            *response.status_mut() = StatusCode::FOUND;
            response.headers_mut().insert("location", "loop".parse().unwrap());
        } else if path == "/base/never" {
            std::future::pending::<()>().await;
        } else if path == "/base/large" {
            *response.body_mut() = Bytes::from(vec![b'x'; 5000]).into();
        } else {
            let headers = describe(&head.headers);
            let text = format!("{} {}\n{headers}\n{}", head.method, head.uri, String::from_utf8_lossy(&body));
            if head.method != Method::HEAD {
                *response.body_mut() = text.into();
            }
            for value in ["a", "b"] {
                response.headers_mut().append("x-multi-part", value.parse().unwrap());
            }
        }
        Ok(response)
    }

    fn describe(headers: &HeaderMap) -> String {
        let shown = ["accept", "content-type", "x-any", "x-token", "traceparent", "authorization"];
        let of = |name: &&str| Some(format!("{name}={}", headers.get(*name)?.to_str().unwrap()));
        shown.iter().filter_map(of).collect::<Vec<_>>().join(" ")
    }

    async fn open_at(address: SocketAddr, metadata: &[(&str, &str)]) -> Arc<dyn Binding> {
        let url = format!("http://{address}/base");
        try_open("bindings.http", &[&[("url", url.as_str())], metadata].concat()).await.unwrap()
    }

    fn body(response: &BindingResponse) -> String {
        String::from_utf8(response.data.clone().unwrap().to_vec()).unwrap()
    }

    const ACCEPT: &str = "accept=application/json; charset=utf-8";

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn keeps_the_promises() {
        let address = server().await;
        let open = || open_at(address, &[]);
        binding::suite("bindings.http", TOKIO, binding::Traits::default(), open).await.assert_passed();
    }

    #[tokio::test]
    async fn requests_are_like_dapr_s() {
        let address = server().await;
        let http = open_at(address, &[("securityTokenHeader", "X-Token"), ("securityToken", "t")]).await;
        let json = "content-type=application/json; charset=utf-8";
        for (operation, metadata, expected) in [
            ("get", &[][..], format!("GET /base\n{ACCEPT} x-token=t\n")),
            ("GET", &[("path", "/a?b=c")], format!("GET /base/a?b=c\n{ACCEPT} x-token=t\n")),
            ("create", &[("path", "a")], format!("POST /base/a\n{ACCEPT} {json} x-token=t\ndata")),
            ("post", &[], format!("POST /base\n{ACCEPT} {json} x-token=t\ndata")),
            ("put", &[], format!("PUT /base\n{ACCEPT} {json} x-token=t\ndata")),
            ("patch", &[], format!("PATCH /base\n{ACCEPT} {json} x-token=t\ndata")),
            ("delete", &[], format!("DELETE /base\n{ACCEPT} x-token=t\n")),
            ("options", &[], format!("OPTIONS /base\n{ACCEPT} x-token=t\n")),
            ("trace", &[], format!("TRACE /base\n{ACCEPT} x-token=t\n")),
            ("head", &[], String::new()),
            (
                "post",
                &[("Content-Type", "text/plain"), ("X-Any", "1"), ("x-lower", "2"), ("traceparent", "tp")],
                format!(
                    "POST /base\n{ACCEPT} content-type=text/plain x-any=1 x-token=t traceparent=tp\ndata"
                ),
            ),
        ] {
            let response = operate(&*http, operation, "data", metadata).await.unwrap();
            assert_eq!(body(&response), expected, "{operation}");
            assert_eq!(response.metadata["statusCode"], "200");
            assert_eq!(response.metadata["status"], "200 OK");
            assert_eq!(response.metadata["X-Multi-Part"], "a, b");
        }
    }

    #[tokio::test]
    async fn what_is_not_2xx() {
        let address = server().await;
        let not_found = [("path", "status/404")];
        for (component, request, is_error) in [
            (&[][..], &[][..], true),
            (&[("errorIfNot2XX", "false")], &[], false),
            (&[("errorIfNot2XX", "false")], &[("errorIfNot2XX", "true")], true),
            (&[], &[("errorIfNot2XX", "false")], false),
        ] {
            let http = open_at(address, component).await;
            let answer = operate(&*http, "get", "", &[&not_found, request].concat()).await;
            match answer {
                Ok(response) => {
                    assert!(!is_error);
                    assert_eq!(response.metadata["statusCode"], "404");
                }
                Err(error) => {
                    assert!(is_error);
                    assert_eq!(error.to_string(), "received status code 404");
                }
            }
        }
    }

    #[tokio::test]
    async fn redirections() {
        let (address, other) = (server().await, server().await);
        let http = open_at(address, &[("securityTokenHeader", "X-Token"), ("securityToken", "t")]).await;
        let follow = |operation: &'static str, path: String| {
            let http = Arc::clone(&http);
            async move {
                let headers = [("path", path.as_str()), ("Authorization", "a")];
                operate(&*http, operation, "data", &headers).await
            }
        };
        let json = "content-type=application/json; charset=utf-8";
        let token = "x-token=t authorization=a";
        for (operation, status, expected) in [
            ("get", 302, format!("GET /base/end\n{ACCEPT} {token}\n")),
            ("post", 303, format!("GET /base/end\n{ACCEPT} {token}\n")),
            ("post", 307, format!("POST /base/end\n{ACCEPT} {json} {token}\ndata")),
        ] {
            let response = follow(operation, format!("to/{status}/end")).await.unwrap();
            assert_eq!(body(&response), expected, "{operation} {status}");
        }
        // Another server is told no secrets.
        let elsewhere = format!("to/307/x?http://{other}/there");
        assert_eq!(body(&follow("get", elsewhere).await.unwrap()), format!("GET /there\n{ACCEPT}\n"));
        for path in ["loop", "to/302/x?file:///etc/passwd", "to/302/x?ftp://localhost/"] {
            let answer = follow("get", path.to_owned()).await;
            assert!(matches!(answer, Err(BlockError::Failed { .. })), "{path}: {answer:?}");
        }
    }

    #[tokio::test]
    async fn hostile_requests_and_answers() {
        let address = server().await;
        let http = open_at(address, &[("responseTimeout", "200ms"), ("maxResponseBodySize", "4Ki")]).await;
        for (path, expected) in [("never", "no complete answer within"), ("large", "longer than 4096 bytes")]
        {
            let error = operate(&*http, "get", "", &[("path", path)]).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        for metadata in [
            &[("path", "../secret")][..],
            &[("path", "%2e%2e/secret")],
            &[("path", "a/../../secret")],
            &[("X-A", "a\r\nX-B: c")],
            &[("X A", "a")],
        ] {
            let answer = operate(&*http, "get", "", metadata).await;
            assert!(matches!(answer, Err(BlockError::Invalid { .. })), "{metadata:?}: {answer:?}");
        }
        // Nobody listens there.
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let answer = operate(&*open_at(free, &[]).await, "get", "", &[]).await;
        assert!(matches!(answer, Err(BlockError::Unavailable { .. })), "{answer:?}");
        let many: Metadata = (0..10_000).map(|number| (format!("X-{number}"), "v".to_owned())).collect();
        let request = BindingRequest { operation: "get".to_owned(), data: Bytes::new(), metadata: many };
        assert!(http.invoke(request).await.is_err(), "a server takes no ten thousand headers");
    }

    #[tokio::test]
    async fn fields_are_checked_and_not_shown() {
        let ok = ("url", "http://localhost:1");
        for (metadata, field) in [
            (&[][..], "url"),
            (&[("url", "hunter2")], "url"),
            (&[("url", "ftp://hunter2/")], "url"),
            (&[ok, ("maxResponseBodySize", "hunter2")], "maxResponseBodySize"),
            (&[ok, ("responseTimeout", "hunter2")], "responseTimeout"),
            (&[ok, ("MTLSRootCA", "hunter2")], "MTLSRootCA"),
            (
                &[ok, ("MTLSRootCA", "-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----")],
                "certificate",
            ),
            (&[ok, ("MTLSRenegotiation", "hunter2")], "MTLSRenegotiation"),
            (&[ok, ("securityTokenHeader", "a b"), ("securityToken", "hunter2")], "securityTokenHeader"),
            (&[ok, ("securityTokenHeader", "X"), ("securityToken", "hunter2\n")], "securityToken"),
        ] {
            let error = try_open("bindings.http", metadata).await.err().unwrap().to_string();
            assert!(error.contains(field) && !error.contains("hunter2"), "{error}");
        }
    }
}
