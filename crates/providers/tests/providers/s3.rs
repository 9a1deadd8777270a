//! `bindings.aws.s3` against a server that checks every signature (s3s over a folder).

use bytes::Bytes;
use dhow_blocks::binding::{Binding, BindingRequest, BindingResponse};
use dhow_blocks::conformance::{Runtime, binding};
use dhow_blocks::error::BlockError;
use dhow_providers::registry::{ComponentSpec, OpenContext, OpenError, Opened, open};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::host::SingleDomain;
use s3s::service::S3ServiceBuilder;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;

const TOKIO: Runtime = Runtime {
    spawn: |task| drop(tokio::spawn(task)),
    sleep: |duration| Box::pin(tokio::time::sleep(duration)),
};

pub(crate) async fn server(folder: &Path) -> SocketAddr {
    std::fs::create_dir(folder.join("shop")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder).unwrap());
    builder.set_auth(SimpleAuth::from_single("key", "hunter2"));
    builder.set_host(SingleDomain::new(&format!("localhost:{}", address.port())).unwrap());
    let service = builder.build();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(socket), service).await);
            });
        }
    });
    address
}

async fn try_open(metadata: &[(&str, &str)]) -> Result<Arc<dyn Binding>, OpenError> {
    let component = ComponentSpec {
        name: "bucket".to_owned(),
        component_type: "bindings.aws.s3".to_owned(),
        version: "v1".to_owned(),
        metadata: metadata.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect(),
    };
    match open(component, OpenContext::default()).await? {
        Opened::Binding(binding) => Ok(binding),
        _ => panic!("no binding"),
    }
}

async fn open_at(address: SocketAddr, metadata: &[(&str, &str)]) -> Arc<dyn Binding> {
    let endpoint = format!("http://localhost:{}", address.port());
    let usual = [
        ("endpoint", endpoint.as_str()),
        ("bucket", "shop"),
        ("region", "eu-central-1"),
        ("accessKey", "key"),
        ("secretKey", "hunter2"),
        ("forcePathStyle", "true"),
    ];
    // What is given first counts.
    try_open(&[metadata, &usual].concat()).await.unwrap()
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

fn json(response: &BindingResponse) -> Value {
    serde_json::from_slice(response.data.as_ref().unwrap()).unwrap()
}

async fn text(binding: &dyn Binding, key: &str) -> String {
    let data = operate(binding, "get", "", &[("key", key)]).await.unwrap().data.unwrap();
    String::from_utf8(data.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_promises() {
    let folder = tempfile::tempdir().unwrap();
    let address = server(folder.path()).await;
    for style in ["true", "false"] {
        let field = [("forcePathStyle", style)];
        let traits = binding::Traits { key_field: Some("key"), ..binding::Traits::default() };
        // The other style names the bucket in the host; *.localhost may not resolve on this machine.
        if style == "false" && tokio::net::lookup_host(("shop.localhost", 80)).await.is_err() {
            continue;
        }
        binding::suite("bindings.aws.s3", TOKIO, traits, || open_at(address, &field)).await.assert_passed();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_as_dapr_does() {
    let folder = tempfile::tempdir().unwrap();
    let address = server(folder.path()).await;
    let s3 = open_at(address, &[]).await;
    let s3 = &*s3;
    let created =
        operate(s3, "create", "\"text\"", &[("key", "dir/a b+ü&?.txt"), ("Content-Type", "text/plain")]);
    let created = created.await.unwrap();
    let location = json(&created)["location"].as_str().unwrap().to_owned();
    assert!(
        location.starts_with(&format!("http://localhost:{}/shop/dir/a%20b", address.port())),
        "{location}"
    );
    assert_eq!(json(&created)["versionID"], Value::Null);
    assert_eq!(created.metadata["key"], "dir/a b+ü&?.txt");
    assert_eq!(text(s3, "dir/a b+ü&?.txt").await, "text");
    // Without a key, and with base64 on both ways.
    let unnamed = operate(s3, "create", "x", &[]).await.unwrap().metadata["key"].clone();
    assert_eq!(unnamed.len(), 36, "a UUID");
    operate(s3, "create", "aGVsbG8=", &[("key", "b64"), ("decodeBase64", "true")]).await.unwrap();
    assert_eq!(text(s3, "b64").await, "hello");
    let encoded = operate(s3, "get", "", &[("key", "b64"), ("encodeBase64", "true")]).await.unwrap();
    assert_eq!(encoded.data.as_deref(), Some(&b"aGVsbG8="[..]));
    // Signed headers, by which the server checks more than the URL.
    let headers = [("key", "classed"), ("storageClass", "STANDARD"), ("tags", "a=b, c=d e")];
    operate(s3, "create", "x", &headers).await.unwrap();
    operate(s3, "delete", "", &[("key", &unnamed)]).await.unwrap();
    let gone = operate(s3, "get", "", &[("key", &unnamed)]).await.unwrap_err();
    assert_eq!(gone.to_string(), "object not found");
    // Lists.
    for (data, expected) in [
        ("", &["b64", "classed", "dir/a b+ü&?.txt"][..]),
        ("{\"prefix\": \"dir/\"}", &["dir/a b+ü&?.txt"]),
        ("{\"marker\": \"b64\", \"maxResults\": 1}", &["classed"]),
        ("{\"delimiter\": \"/\"}", &["b64", "classed"]),
    ] {
        let answer = json(&operate(s3, "list", data, &[]).await.unwrap());
        let keys: Vec<_> = answer["Contents"]
            .as_array()
            .unwrap()
            .iter()
            .map(|object| object["Key"].as_str().unwrap())
            .collect();
        assert_eq!(keys, expected, "{data}");
        assert_eq!(answer["Name"], "shop");
        assert_eq!(answer["IsTruncated"], data.contains("maxResults"), "{data}");
    }
    let answer = json(&operate(s3, "list", "{\"prefix\": \"b64\"}", &[]).await.unwrap());
    assert_eq!(answer["Contents"][0]["Size"], 5);
    assert!(answer["Contents"][0]["LastModified"].is_string());
}

#[cfg(feature = "http")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presigned_urls_need_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let address = server(folder.path()).await;
    let s3 = open_at(address, &[]).await;
    let s3 = &*s3;
    let created = operate(s3, "create", "text", &[("key", "a"), ("presignTTL", "15m")]).await.unwrap();
    let presigned = operate(s3, "presign", "", &[("key", "a"), ("presignTTL", "1h")]).await.unwrap();
    // `bindings.http` knows nothing of S3.
    let get = |url: String| async move {
        let component = ComponentSpec {
            name: "http".to_owned(),
            component_type: "bindings.http".to_owned(),
            version: String::new(),
            metadata: vec![("url".to_owned(), url)],
        };
        match open(component, OpenContext::default()).await.unwrap() {
            Opened::Binding(http) => operate(&*http, "get", "", &[]).await,
            _ => panic!("no binding"),
        }
    };
    for response in [created, presigned] {
        let url = json(&response)["presignURL"].as_str().unwrap().to_owned();
        assert!(!url.contains("hunter2"));
        assert_eq!(get(url.clone()).await.unwrap().data.as_deref(), Some(&b"text"[..]));
        let forged = url.replace("/shop/a?", "/shop/b?");
        assert!(get(forged).await.unwrap_err().to_string().contains("403"));
    }
    for ttl in ["", "x", "0s", "169h", "-1s"] {
        let answer = operate(s3, "presign", "", &[("key", "a"), ("presignTTL", ttl)]).await;
        assert!(matches!(answer, Err(BlockError::Invalid { .. })), "{ttl}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_requests_and_wrong_keys() {
    let folder = tempfile::tempdir().unwrap();
    let address = server(folder.path()).await;
    let s3 = open_at(address, &[]).await;
    let long = "k".repeat(1025);
    for operation in ["create", "get", "delete", "presign"] {
        for key in ["..", "a/../../other/b", "/a", "./x", &long] {
            let answer = operate(&*s3, operation, "", &[("key", key), ("presignTTL", "1m")]).await;
            assert!(matches!(answer, Err(BlockError::Invalid { .. })), "{operation} {key}: {answer:?}");
        }
    }
    for (data, metadata) in [
        ("x", &[("key", "a"), ("filePath", "/etc/passwd")][..]),
        ("no base64!", &[("key", "a"), ("decodeBase64", "true")]),
        ("x", &[("key", "a"), ("tags", "nonsense")]),
        ("x", &[("key", "a"), ("storageClass", "a\r\nb")]),
        ("x", &[("key", "a"), ("presignTTL", "soon")]),
    ] {
        let answer = operate(&*s3, "create", data, metadata).await;
        assert!(matches!(answer, Err(BlockError::Invalid { .. })), "{metadata:?}: {answer:?}");
    }
    assert!(matches!(operate(&*s3, "list", "[", &[]).await, Err(BlockError::Invalid { .. })));
    assert_eq!(std::fs::read_dir(folder.path().join("shop")).unwrap().count(), 0);
    let forger = open_at(address, &[("secretKey", "wrong hunter2")]).await;
    for operation in ["create", "get", "delete", "list"] {
        let error = operate(&*forger, operation, "", &[("key", "a")]).await.unwrap_err().to_string();
        assert!(error.contains("403") && !error.contains("hunter2"), "{operation}: {error}");
    }
    assert!(forger.ping().await.is_err());
    let nowhere = open_at(address, &[("bucket", "absent")]).await;
    assert!(nowhere.ping().await.is_err());
}

#[tokio::test]
async fn fields_are_checked_and_not_shown() {
    let keys = [("accessKey", "key"), ("secretKey", "hunter2")];
    for (metadata, named) in [
        (&[][..], "bucket"),
        (&[("bucket", "a/b")], "bucket"),
        (&[("bucket", "..")], "bucket"),
        (&[("bucket", "a"), ("endpoint", "http://")], "endpoint"),
        (&[("bucket", "a"), ("endpoint", "ftp://x")], "endpoint"),
        (&[("bucket", "a"), ("endpoint", "127.0.0.1:1")], "forcePathStyle"),
    ] {
        let error = try_open(&[metadata, &keys].concat()).await.err().unwrap().to_string();
        assert!(error.contains(named) && !error.contains("hunter2"), "{named}: {error}");
    }
    let error = try_open(&[("bucket", "a"), ("secretKey", "hunter2")]).await.err().unwrap().to_string();
    assert!(error.contains("accessKey") && !error.contains("hunter2"), "{error}");
}
