//! A client of a few lines: it sends what it is told, and shows what comes back.

use crate::support::http::{self, Response};
use crate::support::{Host, Setting};
use dhow_artifacts::digest::Digest;
use dhow_servers::Process;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Makes the bucket `registry`, with Amazon's own client.
const MAKE_BUCKET: &str = "import boto3, sys\n\
    boto3.client('s3', endpoint_url=sys.argv[1], region_name='us-east-1', aws_access_key_id='a', \
    aws_secret_access_key='b').create_bucket(Bucket='registry')";

/// Runs each test with a registry in a folder, and with one in a bucket.
macro_rules! over_storages {
    ($($name:ident),* $(,)?) => {
        mod in_folder {
            $(#[test] fn $name() { super::$name(crate::client::Registry::start()) })*
        }
        mod in_bucket {
            $(#[test] fn $name() { super::$name(crate::client::Registry::in_bucket()) })*
        }
    };
}
pub(crate) use over_storages;

/// A registry, in a folder of its own.
pub(crate) struct Registry {
    pub(crate) setting: Setting,
    pub(crate) host: Host,
    /// What has its content, if that is not its folder.
    bucket: Option<Process>,
}

/// One who asks it.
#[derive(Clone, Copy)]
pub(crate) struct Client<'a> {
    pub(crate) addr: SocketAddr,
    /// `Authorization`, if any.
    pub(crate) authorization: Option<&'a str>,
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    Digest::sha256(bytes).to_string()
}

/// What refers to these bytes.
pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

/// A manifest with an empty configuration and one layer.
pub(crate) fn manifest(media_type: &str, layer: &[u8]) -> Vec<u8> {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/x-test",
        "config": descriptor(EMPTY, b"{}"),
        "layers": [descriptor(media_type, layer)],
    });
    serde_json::to_vec(&manifest).unwrap()
}

/// Bytes that look random and are always the same; another seed makes others.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random(&mut state).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// xorshift64*
pub(crate) fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

// === impl Registry ===

impl Registry {
    /// Open to this machine, as it is with no flags.
    pub(crate) fn start() -> Registry {
        Registry::with(&[])
    }

    pub(crate) fn with(flags: &[&str]) -> Registry {
        let setting = Setting::new();
        let host = setting.registry(flags);
        Registry { setting, host, bucket: None }
    }

    /// The same with its content in a bucket.
    pub(crate) fn in_bucket() -> Registry {
        let server = dhow_servers::moto().unwrap();
        let made = Command::new(dhow_servers::python_with_boto3().unwrap())
            .args(["-c", MAKE_BUCKET, &format!("http://{}", server.address())])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let (key, secret) = dhow_servers::MOTO_KEYS;
        let setting = Setting::new()
            .env("AWS_ACCESS_KEY_ID", key)
            .env("AWS_SECRET_ACCESS_KEY", secret)
            .env("DHOW_REGISTRY_STORAGE", "s3://registry/some/where")
            .env("DHOW_REGISTRY_S3_ENDPOINT", &format!("http://{}", server.address()));
        let host = setting.registry(&[]);
        Registry { setting, host, bucket: Some(server) }
    }

    pub(crate) fn client(&self) -> Client<'static> {
        Client { addr: self.host.addr, authorization: None }
    }

    /// Where the content with this digest is on the disk.
    pub(crate) fn file(&self, digest: &str) -> PathBuf {
        let (algorithm, hex) = digest.split_once(':').unwrap();
        self.setting.path().join("registry/blobs").join(algorithm).join(&hex[..2]).join(hex)
    }

    /// Ends it as a loss of power does, and starts it again.
    pub(crate) fn kill_and_start(self, flags: &[&str]) -> Registry {
        let Registry { setting, host, bucket } = self;
        host.kill();
        let host = setting.registry(flags);
        Registry { setting, host, bucket }
    }
}

// === impl Client ===

impl<'a> Client<'a> {
    pub(crate) fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.try_send(method, target, headers, body)
            .unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    pub(crate) fn try_send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Response> {
        let authorization = self.authorization.map(|value| ("authorization", value));
        let headers: Vec<(&str, &str)> = headers.iter().copied().chain(authorization).collect();
        http::try_send(self.addr, method, target, &headers, body)
    }

    pub(crate) fn get(&self, target: &str) -> Response {
        self.send("GET", target, &[], b"")
    }

    /// The whole blob in one request.
    pub(crate) fn push_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let answer =
            self.send("POST", &format!("/v2/{repository}/blobs/uploads/?digest={digest}"), &[], bytes);
        assert_eq!(answer.status, 201, "{}", answer.text());
        digest
    }

    pub(crate) fn put_manifest(&self, repository: &str, reference: &str, bytes: &[u8]) -> Response {
        let media_type = serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        let media_type = media_type["mediaType"].as_str().unwrap_or(MANIFEST).to_owned();
        self.send(
            "PUT",
            &format!("/v2/{repository}/manifests/{reference}"),
            &[("content-type", &media_type)],
            bytes,
        )
    }

    /// An artifact with one layer; the answer is the digest of its manifest.
    pub(crate) fn push(&self, repository: &str, tag: &str, media_type: &str, layer: &[u8]) -> String {
        self.push_blob(repository, b"{}");
        self.push_blob(repository, layer);
        let manifest = manifest(media_type, layer);
        let answer = self.put_manifest(repository, tag, &manifest);
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.header("docker-content-digest").unwrap().to_owned()
    }

    /// Begins an upload; the answer is where it goes on.
    pub(crate) fn begin(&self, repository: &str) -> String {
        let answer = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.header("location").unwrap().to_owned()
    }
}

/// The first code of an error in the specification's form.
pub(crate) fn code(answer: &Response) -> String {
    answer.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
}
