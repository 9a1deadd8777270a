//! Signatures as cosign makes them, with OpenSSL in its place: a key on P-256, ECDSA over SHA-256 in DER, in base64.

use crate::hostile::{Answer, Hostile};
use crate::support::{Setting, guest};
use crate::{PROGRAM, Shop, refused, succeeded, tool};
use dhow_artifacts::digest::Digest;
use std::fs;
use std::net::SocketAddr;

impl Shop {
    fn address(&self) -> SocketAddr {
        self.registry.address().parse().unwrap()
    }

    /// Makes a pair of keys: `<name>.key` and `<name>.pub`.
    fn keys(&self, name: &str) {
        let (key, public) = (format!("{name}.key"), format!("{name}.pub"));
        let folder = self.setting.path();
        tool(folder, "openssl", &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &key], &[]);
        tool(folder, "openssl", &["ec", "-in", &key, "-pubout", "-out", &public], &[]);
    }

    fn sign(&self, name: &str, document: &[u8]) -> String {
        self.setting.file("document", document);
        let key = format!("{name}.key");
        let folder = self.setting.path();
        tool(folder, "openssl", &["dgst", "-sha256", "-sign", &key, "-out", "signature", "document"], &[]);
        tool(folder, "base64", &["-w0", "signature"], &[]).trim().to_owned()
    }

    fn put(&self, path: &str, content_type: &str, bytes: &[u8]) {
        let headers = [("content-type", content_type)];
        let answer = crate::support::http::send(self.address(), "PUT", path, &headers, bytes);
        assert_eq!(answer.status, 201, "{path}: {}", answer.text());
    }

    /// Uploads content; the answer is the part of a descriptor that names it.
    fn upload(&self, repository: &str, bytes: &[u8]) -> String {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let answer = crate::support::http::send(self.address(), "POST", &path, &[], b"");
        let place = answer.header("location").unwrap().to_owned();
        let place = place.split_once("/v2/").map(|(_, rest)| format!("/v2/{rest}")).unwrap();
        let digest = Digest::sha256(bytes);
        self.put(&format!("{place}&digest={digest}"), "application/octet-stream", bytes);
        format!(r#""digest": "{digest}", "size": {}"#, bytes.len())
    }

    /// What `cosign sign --key` leaves in a registry, signed with this key, saying that it is for `about`.
    fn cosign(&self, key: &str, repository: &str, subject: &Digest, about: &Digest) {
        let document = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"{}/{repository}"}},"image":{{"docker-manifest-digest":"{about}"}},"type":"cosign container image signature"}},"optional":null}}"#,
            self.registry.address()
        );
        let signature = self.sign(key, document.as_bytes());
        let (config, layer) = (self.upload(repository, b"{}"), self.upload(repository, document.as_bytes()));
        let manifest = format!(
            r#"{{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {{"mediaType": "application/vnd.oci.image.config.v1+json", {config}}},
            "layers": [{{"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", {layer},
            "annotations": {{"dev.cosignproject.cosign/signature": "{signature}"}}}}]}}"#
        );
        let tag = format!("sha256-{}.sig", subject.hex());
        let path = format!("/v2/{repository}/manifests/{tag}");
        self.put(&path, "application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    }

    /// What version 3 of cosign leaves in a registry that has no list of referrers.
    fn bundle(&self, key: &str, repository: &str, subject: &Digest) {
        let statement = format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{}"}}}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{{}}}}"#,
            subject.hex()
        );
        let kind = "application/vnd.in-toto+json";
        let signed = format!("DSSEv1 {} {kind} {} {statement}", kind.len(), statement.len());
        let signature = self.sign(key, signed.as_bytes());
        self.setting.file("statement", statement.as_bytes());
        let payload = tool(self.setting.path(), "base64", &["-w0", "statement"], &[]);
        let bundle = format!(
            r#"{{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{{}},"dsseEnvelope":{{"payload":"{payload}","payloadType":"{kind}","signatures":[{{"sig":"{signature}"}}]}}}}"#
        );
        let (config, layer) = (self.upload(repository, b"{}"), self.upload(repository, bundle.as_bytes()));
        let kind = "application/vnd.dev.sigstore.bundle.v0.3+json";
        let manifest = format!(
            r#"{{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": "{kind}",
            "config": {{"mediaType": "application/vnd.oci.empty.v1+json", {config}}},
            "layers": [{{"mediaType": "{kind}", {layer}}}]}}"#
        );
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let digest = Digest::sha256(manifest.as_bytes());
        self.put(&format!("/v2/{repository}/manifests/{digest}"), manifest_type, manifest.as_bytes());
        let index = format!(
            r#"{{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
            {{"mediaType": "{manifest_type}", "digest": "{digest}", "size": {}, "artifactType": "{kind}"}}]}}"#,
            manifest.len()
        );
        let path = format!("/v2/{repository}/manifests/sha256-{}", subject.hex());
        self.put(&path, "application/vnd.oci.image.index.v1+json", index.as_bytes());
    }
}

fn digest(pinned: &str) -> Digest {
    pinned.split('@').nth(1).unwrap().parse().unwrap()
}

#[test]
fn only_what_is_signed_with_the_key_is_pulled_and_run() {
    let shop = Shop::new();
    shop.keys("cosign");
    shop.keys("other");
    let pinned = shop.push(PROGRAM, "orders:1");
    let digest = digest(&pinned);
    let reference = shop.reference("orders:1");
    let run = ["run", &reference, "--cosign-key", "cosign.pub"];
    let error = shop.refused(&run);
    assert!(error.contains("is not trusted: it has no signature"), "{error}");
    shop.cosign("other", "orders", &digest, &digest);
    let error = shop.refused(&run);
    assert!(error.contains("another key"), "{error}");
    // A signature that is right, for something else.
    shop.cosign("cosign", "orders", &digest, &Digest::sha256(b"else"));
    let error = shop.refused(&["pull", &reference, "--cosign-key", "cosign.pub", "--output", "got.wasm"]);
    assert!(error.contains("the signature is for"), "{error}");
    assert!(!shop.setting.path().join("got.wasm").exists());
    shop.cosign("cosign", "orders", &digest, &digest);
    for reference in [&reference, &pinned] {
        shop.dhow(&["run", reference, "--cosign-key", "cosign.pub"]);
        shop.dhow(&["pull", reference, "--cosign-key", "cosign.pub"]);
        shop.dhow(&["inspect", reference, "--cosign-key", "cosign.pub"]);
    }
    let error = shop.refused(&["pull", &reference, "--cosign-key", "other.pub"]);
    assert!(error.contains("another key"), "{error}");
    let error = shop.refused(&["pull", &reference, "--cosign-key", "cosign.key"]);
    assert!(error.contains("belongs to the signer"), "{error}");
    // The tag leads elsewhere now: the old signature is for the old content.
    shop.push("p1-command", "orders:1");
    let error = shop.refused(&run);
    assert!(error.contains("it has no signature"), "{error}");
    // What was verified is verified again without a network.
    let setting = shop.setting;
    drop(shop.registry);
    succeeded(setting.run(&["run", &pinned, "--cosign-key", "cosign.pub", "--offline"]));
    let error = refused(setting.run(&["run", &pinned, "--cosign-key", "other.pub", "--offline"]));
    assert!(error.contains("another key"), "{error}");
}

#[test]
fn bundles_of_version_3_are_verified() {
    let shop = Shop::new();
    shop.keys("cosign");
    shop.keys("other");
    let pinned = shop.push(PROGRAM, "orders:1");
    shop.bundle("cosign", "orders", &digest(&pinned));
    shop.dhow(&["run", &pinned, "--cosign-key", "cosign.pub"]);
    let error = shop.refused(&["run", &pinned, "--cosign-key", "other.pub"]);
    assert!(error.contains("another key"), "{error}");

    // A registry that lists what is attached, and so has no tag for it.
    let (address, subject) = (shop.address(), digest(&pinned));
    let tag = format!("/v2/orders/manifests/sha256-{}", subject.hex());
    let lists = Hostile::start(move |request, _| {
        let accept = [("accept", request.header("accept").unwrap_or("*/*"))];
        let target = match &request.target {
            target if *target == tag => return Answer::new(404, "{}"),
            target if *target == format!("/v2/orders/referrers/{subject}") => &tag,
            target => target,
        };
        let found = crate::support::http::send(address, "GET", target, &accept, b"");
        Answer::new(found.status, found.body)
    });
    let (insecure, reference) = (lists.addr.to_string(), lists.reference("orders:1"));
    let pull = |key: &str| {
        let setting = &shop.setting;
        setting.run(&["pull", &reference, "--cosign-key", key, "--insecure", &insecure])
    };
    succeeded(pull("cosign.pub"));
    assert!(refused(pull("other.pub")).contains("another key"));
    assert!(lists.seen().iter().any(|request| request.target.contains("/referrers/")));
    succeeded(shop.setting.run(&["run", &reference, "--cosign-key", "cosign.pub", "--offline"]));
}

#[test]
fn an_app_of_a_manifest_has_a_key() {
    let shop = Shop::new();
    shop.keys("cosign");
    let pinned = shop.push("http-hello", "hello:1");
    let manifest = |key: &str| {
        let text = format!("[apps.hello]\nmodule = \"{}\"\n{key}route = \"/\"\n", shop.reference("hello:1"));
        shop.setting.file("dhow.toml", text.as_bytes());
    };
    manifest("cosign_key = \"cosign.pub\"\n");
    let error = refused(shop.setting.up_fails(&[]));
    assert!(error.contains("is not trusted"), "{error}");
    shop.cosign("cosign", "hello", &digest(&pinned), &digest(&pinned));
    let host = shop.setting.up(&[]);
    assert_eq!(host.get("/").status, 200);
    host.stop();
    let setting = Setting::new();
    let file = guest("http-hello");
    let text = format!("[apps.hello]\nmodule = {:?}\ncosign_key = \"cosign.pub\"\n", file.to_string_lossy());
    setting.file("dhow.toml", text.as_bytes());
    let error = refused(setting.up_fails(&[]));
    assert!(error.contains("dhow.toml:3") && error.contains("only modules in a registry"), "{error}");
    assert!(fs::metadata(shop.setting.path().join("cosign.pub")).is_ok());
}
