//! Artifacts in buckets of Google's kind and containers of Azure's, written by dhow and read with the vendors' clients, and
//! the other way round.
//!
//! Azurite is Microsoft's own and checks signatures. Of Google's kind nothing that can be installed takes uploads as the
//! XML API has them, which is S3's but for who asks: so moto, which speaks as S3 does and lets everybody in, takes them
//! behind a gate that checks Google's tokens with Google's own library; what Google's client wrote is read from
//! fake-gcs-server.

use crate::buckets::{HELD, flow, look, make_bucket};
use crate::gate::Gate;
use crate::{Desk, Ended, node};
use dhow_servers::{AZURITE_ACCOUNT, Process, azurite, fake_gcs, moto, python_with_clouds};
use serde_json::{Value, json};
use std::process::Command;

/// Makes a container, fills it, or says what is in it: for each blob what it holds. Behind [`HELD`].
const AZURE: &str = r#"
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas
from datetime import datetime, timedelta, timezone
url, key, what, container = sys.argv[1:5]
client = BlobServiceClient(url, credential=key).get_container_client(container)
if what == "make":
    client.create_container()
elif what == "fill":
    client.upload_blob("plain.txt", b"from Azure's own client")
    client.upload_blob("a folder/ümläut %41.txt", b"named")
    for number in range(5003):
        client.upload_blob(f"many/{number % 7}/{number}.txt", b"x")
elif what == "sas":
    print(generate_container_sas("devstoreaccount1", container, account_key=key, expiry=datetime.now(timezone.utc)
          + timedelta(hours=1), permission=ContainerSasPermissions(read=True, write=True, create=True, list=True)))
elif what == "sizes":
    print(json.dumps({blob.name: blob.size for blob in client.list_blobs()}))
else:
    found = {b.name: held(b.name, client.download_blob(b.name).readall()) for b in client.list_blobs()}
    print(json.dumps(found))
"#;

/// What Google's own client writes.
const FILL_GCS: &str = r#"
import os, sys
os.environ["STORAGE_EMULATOR_HOST"] = sys.argv[1]
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
bucket = storage.Client(project="p", credentials=AnonymousCredentials()).create_bucket("foreign")
bucket.blob("plain.txt").upload_from_string("from Google's own client")
bucket.blob("a folder/ümläut %41.txt").upload_from_string("named")
for number in range(30):
    bucket.blob(f"many/{number % 7}/{number}.txt").upload_from_string("x")
"#;

/// Checks the token of a request with Google's library.
const CHECK: &str = r#"
import sys
from google.auth import jwt
certificate = open(sys.argv[2]).read()
def check(request):
    token = request.headers["authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, certs={"the-key": certificate})
    assert claims["iss"] == "tester@example.com", claims
    assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform", claims
"#;

/// A gate that asks for tokens of a service account, whose key is left in the desk.
fn google(server: &Process, desk: &Desk) -> Gate {
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").args(args).current_dir(desk.path("")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "key.pem"]);
    openssl(&["req", "-new", "-x509", "-key", "key.pem", "-subj", "/CN=tester", "-out", "cert.pem"]);
    let key = json!({
        "type": "service_account", "private_key_id": "the-key", "client_email": "tester@example.com",
        "private_key": std::fs::read_to_string(desk.path("key.pem")).unwrap(),
    });
    std::fs::write(desk.path("account.json"), key.to_string()).unwrap();
    std::fs::create_dir_all(desk.path("secrets/google")).unwrap();
    std::fs::write(desk.path("secrets/google/key"), key.to_string()).unwrap();
    Gate::before(server, CHECK, &[&desk.path("cert.pem").to_string_lossy()])
}

fn python(script: &str, args: &[&str]) -> String {
    let output =
        Command::new(python_with_clouds().unwrap()).args(["-c", script]).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn endpoint(server: &Process) -> String {
    format!("http://{}/{}", server.address(), AZURITE_ACCOUNT.0)
}

fn azure(server: &Process, what: &str, container: &str) -> String {
    python(&[HELD, AZURE].concat(), &[&endpoint(server), AZURITE_ACCOUNT.1, what, container])
}

fn ran(mut command: Command) -> Ended {
    command.output().unwrap().into()
}

/// The controller's ConfigMap with that repository.
fn config_map(repository: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: workflow-controller-configmap}}\ndata:\n  \
         artifactRepository: |\n    archiveLogs: true\n{repository}"
    )
}

/// Whether every step got what it should, and the bucket has what Argo would have put there.
fn assert_flow(desk: &Desk, name: &str, found: &Value) {
    let status = desk.status(name);
    for (step, result) in [
        ("packed", "hello"),
        ("plain", "hello"),
        ("zipped", r#"["file.txt"]"#),
        ("folder", r#"["file.txt"]"#),
        ("part", "hello"),
    ] {
        assert_eq!(node(&status, step)["outputs"]["result"], result, "{step}");
    }
    let by_end = |end: &str| {
        let (_, value) = found.as_object().unwrap().iter().find(|(key, _)| key.ends_with(end)).unwrap();
        value.clone()
    };
    assert_eq!(by_end("/packed.tgz"), json!({"file.txt": "hello"}));
    assert_eq!(by_end("/zipped.zip"), json!({"out/file.txt": "hello"}));
    assert_eq!(found[format!("own/{name}/file.txt")], "hello", "{found}");
    assert_eq!(found.as_object().unwrap().keys().filter(|key| key.ends_with("/main.log")).count(), 6);
}

/// No file that a run left has the secret in it.
fn assert_untold(desk: &Desk, secret: &str) {
    let history = std::fs::read_dir(desk.path(".dhow/workflows")).unwrap().flatten();
    for file in history.filter(|entry| entry.path().is_file()) {
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{:?}", file.path());
    }
}

#[test]
fn a_container_has_what_argo_would_put_there() {
    let (desk, server) = (Desk::new(), azurite().unwrap());
    azure(&server, "make", "artifacts");
    let text = config_map(&format!(
        "    azure:\n      endpoint: {}\n      container: artifacts\n      blobNameFormat: \
         \"runs/{{{{workflow.name}}}}/{{{{pod.name}}}}\"\n      accountKeySecret: {{name: azure, key: key}}\n",
        endpoint(&server)
    ));
    std::fs::write(desk.path("repository.yaml"), text).unwrap();
    std::fs::create_dir_all(desk.path("secrets/azure")).unwrap();
    std::fs::write(desk.path("secrets/azure/key"), format!("{}\n", AZURITE_ACCOUNT.1)).unwrap();
    desk.workflow("flow", &flow("azure", "blob"));
    let flags = ["--artifact-repository", "repository.yaml", "--artifact-secrets", "secrets"];
    let run =
        |name: &str| desk.dhow(&[&["workflow", "run", "flow.yaml", "--name", name], &flags[..]].concat());
    let ended = run("flow");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let found: Value = serde_json::from_str(&azure(&server, "look", "artifacts")).unwrap();
    assert_flow(&desk, "flow", &found);
    assert!(found.as_object().unwrap().keys().any(|key| key.starts_with("runs/flow/flow-write-")), "{found}");
    assert_untold(&desk, AZURITE_ACCOUNT.1);

    // A shared access signature in the place of the key, as Argo takes it.
    let signature = azure(&server, "sas", "artifacts");
    std::fs::write(desk.path("secrets/azure/key"), format!("?{signature}")).unwrap();
    let ended = run("signed");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let found: Value = serde_json::from_str(&azure(&server, "look", "artifacts")).unwrap();
    assert_eq!(found["own/signed/file.txt"], "hello", "{found}");

    // Another key is refused, once, and neither is shown.
    let other = "c2VjcmV0LW9mLXRlc3Rz";
    std::fs::write(desk.path("secrets/azure/key"), other).unwrap();
    let ended = run("refused");
    assert!(ended.code == Some(1) && ended.err.contains("AuthorizationFailure"), "{ended:?}");
    assert!(!ended.err.contains(other) && !ended.err.contains("sig="), "{ended:?}");
    std::fs::write(desk.path("secrets/azure/key"), "no base64!").unwrap();
    let ended = run("unreadable");
    assert!(ended.code == Some(2) && !ended.err.contains("no base64!"), "{ended:?}");
}

#[test]
fn a_server_that_comes_late_is_waited_for() {
    let (desk, mut server) = (Desk::new(), azurite().unwrap());
    azure(&server, "make", "late");
    server.terminate().unwrap();
    desk.workflow("late", &flow("azure", "blob"));
    let endpoint = endpoint(&server);
    let flags = ["--azure-container", "late", "--azure-endpoint", &endpoint];
    let mut command = desk.command(&[&["workflow", "run", "late.yaml"], &flags[..]].concat());
    let running = command.env("AZURE_STORAGE_KEY", AZURITE_ACCOUNT.1).spawn().unwrap();
    // The step has ended, and its artifacts have nowhere to go yet.
    desk.wait("late", |status| status["status"]["nodes"].as_object().is_some_and(|nodes| !nodes.is_empty()));
    server.start().unwrap();
    let ended: Ended = running.wait_with_output().unwrap().into();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let found: Value = serde_json::from_str(&azure(&server, "look", "late")).unwrap();
    assert_eq!(found["own/late/file.txt"], "hello", "{found}");
    // Its name without its account.
    let ended = ran(desk.command(&["workflow", "run", "late.yaml", "--azure-container", "late"]));
    assert!(ended.code == Some(2) && ended.err.contains("--azure-endpoint"), "{ended:?}");
}

/// A workflow whose steps read what somebody else left.
fn foreign(place: &str, key: &str) -> String {
    format!(
        r#"
  entrypoint: main
  templates:
  - name: main
    steps:
    - - {{name: plain, template: plain}}
      - {{name: named, template: named}}
      - {{name: many, template: many}}
      - {{name: gone, template: gone}}
  - name: plain
    inputs: {{artifacts: [{{name: f, path: /in/f, {place}, {key}: plain.txt}}}}]}}
    wasm: {{image: tool.wasm, args: [cat, /in/f]}}
  - name: named
    inputs: {{artifacts: [{{name: f, path: /in/f, {place}, {key}: "a folder/ümläut %41.txt"}}}}]}}
    wasm: {{image: tool.wasm, args: [cat, /in/f]}}
  - name: many
    inputs: {{artifacts: [{{name: f, path: /in/f, {place}, {key}: many}}}}]}}
    wasm: {{image: tool.wasm, args: [ls, /in/f/4]}}
  - name: gone
    inputs: {{artifacts: [{{name: f, path: /in/f, optional: true, {place}, {key}: nothing}}}}]}}
    wasm: {{image: tool.wasm, args: [ls, /]}}
"#
    )
}

fn assert_foreign(desk: &Desk, whose: &str, files: usize) {
    let status = desk.status("foreign");
    assert_eq!(node(&status, "plain")["outputs"]["result"], format!("from {whose}'s own client"));
    assert_eq!(node(&status, "named")["outputs"]["result"], "named");
    let many = node(&status, "many")["outputs"]["result"].as_str().unwrap();
    let many: Vec<String> = serde_json::from_str(many).unwrap();
    assert_eq!(many.len(), (0..files).filter(|number| number % 7 == 4).count());
}

#[test]
fn what_microsofts_client_wrote_comes_to_a_step() {
    let (desk, server) = (Desk::new(), azurite().unwrap());
    azure(&server, "make", "foreign");
    azure(&server, "fill", "foreign");
    std::fs::create_dir_all(desk.path("secrets/azure")).unwrap();
    std::fs::write(desk.path("secrets/azure/key"), AZURITE_ACCOUNT.1).unwrap();
    let place = format!(
        "azure: {{endpoint: {}, container: foreign, accountKeySecret: {{name: azure, key: key}}",
        endpoint(&server)
    );
    desk.workflow("foreign", &foreign(&place, "blob"));
    let ended = desk.dhow(&["workflow", "run", "foreign.yaml", "--artifact-secrets", "secrets"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_foreign(&desk, "Azure", 5003);
}

#[test]
fn what_googles_client_wrote_comes_to_a_step() {
    let (desk, server) = (Desk::new(), fake_gcs().unwrap());
    let url = format!("http://{}", server.address());
    python(FILL_GCS, &[&url]);
    desk.workflow("foreign", &foreign("gcs: {bucket: foreign", "key"));
    let mut command = desk.command(&["workflow", "run", "foreign.yaml"]);
    command.env("STORAGE_EMULATOR_HOST", &url);
    let ended = ran(command);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_foreign(&desk, "Google", 30);
}

#[test]
fn a_bucket_of_googles_kind_has_what_argo_would_put_there() {
    let (desk, server) = (Desk::new(), moto().unwrap());
    let gate = google(&server, &desk);
    make_bucket(&server, "artifacts");
    let text = config_map(
        "    gcs:\n      bucket: artifacts\n      keyFormat: \"runs/{{workflow.name}}/{{pod.name}}\"\n      \
         serviceAccountKeySecret: {name: google, key: key}\n",
    );
    std::fs::write(desk.path("repository.yaml"), text).unwrap();
    desk.workflow("flow", &flow("gcs", "key"));
    let flags = ["--artifact-repository", "repository.yaml", "--artifact-secrets", "secrets"];
    let run = |name: &str| {
        let mut command =
            desk.command(&[&["workflow", "run", "flow.yaml", "--name", name], &flags[..]].concat());
        command.env("STORAGE_EMULATOR_HOST", gate.url());
        ran(command)
    };
    let ended = run("flow");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let found = look(&server, "artifacts");
    assert_flow(&desk, "flow", &found);
    assert!(found.as_object().unwrap().keys().any(|key| key.starts_with("runs/flow/flow-write-")), "{found}");
    assert_untold(&desk, "PRIVATE KEY");

    // The command line, with the file that Google's variable names.
    let mut command =
        desk.command(&["workflow", "run", "flow.yaml", "--name", "told", "--gcs-bucket", "artifacts"]);
    command.env("STORAGE_EMULATOR_HOST", gate.url());
    command.env("GOOGLE_APPLICATION_CREDENTIALS", desk.path("account.json"));
    let ended = ran(command);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(look(&server, "artifacts")["own/told/file.txt"], "hello");

    // The key of somebody else, and what is no key: neither is shown.
    let other = Desk::new();
    let _others = google(&server, &other);
    std::fs::copy(other.path("account.json"), desk.path("secrets/google/key")).unwrap();
    let ended = run("refused");
    assert!(ended.code == Some(1) && ended.err.contains("AuthenticationRequired"), "{ended:?}");
    std::fs::write(desk.path("secrets/google/key"), r#"{"private_key": "hidden", "client_email": "a"}"#)
        .unwrap();
    let ended = run("unreadable");
    assert!(ended.code == Some(2) && ended.err.contains("private_key_id"), "{ended:?}");
    assert!(!ended.err.contains("hidden"), "{ended:?}");
}

/// Bytes of the artifact that passes, and of memory that it may take on its way.
const LARGE: u64 = 256 << 20;
const MEMORY: u64 = 64 << 20;

#[test]
fn a_large_artifact_passes_through_little_memory() {
    let (desk, blobs, objects) = (Desk::new(), azurite().unwrap(), moto().unwrap());
    azure(&blobs, "make", "large");
    make_bucket(&objects, "large");
    let gate = google(&objects, &desk);
    let data = std::fs::File::create(desk.path("data")).unwrap();
    let flow = r#"
  entrypoint: pass
  arguments: {artifacts: [{name: data}]}
  templates:
  - name: pass
    inputs: {artifacts: [{name: data, path: /data/file}]}
    wasm: {image: tool.wasm, args: [args]}
    outputs: {artifacts: [{name: plain, path: /data/file, archive: {none: {}}}]}
"#;
    let input = format!("data={}", desk.path("data").display());
    let endpoint = endpoint(&blobs);
    let kinds = [
        ("azure", &["--azure-container", "large", "--azure-endpoint", &endpoint][..]),
        ("gcs", &["--gcs-bucket", "large"][..]),
    ];
    for (kind, flags) in kinds {
        let peak = |name: &str, length: u64| {
            desk.workflow(name, flow);
            data.set_len(length).unwrap();
            let file = format!("{name}.yaml");
            let mut command =
                desk.command(&[&["workflow", "run", &file, "--artifact", &input], flags].concat());
            command.env("AZURE_STORAGE_KEY", AZURITE_ACCOUNT.1).env("STORAGE_EMULATOR_HOST", gate.url());
            command.env("GOOGLE_APPLICATION_CREDENTIALS", desk.path("account.json"));
            crate::buckets::peak_of(command, name)
        };
        let (small, large) = (peak(&format!("{kind}-small"), 1), peak(&format!("{kind}-large"), LARGE));
        assert!(large < small + MEMORY, "{kind}: {small} bytes without it, {large} with it");
    }
    let sizes: Value = serde_json::from_str(&azure(&blobs, "sizes", "large")).unwrap();
    assert!(sizes.as_object().unwrap().values().any(|size| *size == LARGE), "{sizes}");
}
