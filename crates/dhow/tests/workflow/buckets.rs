//! Artifacts in buckets: written by dhow and read with boto3, written with Python's own archives and read by steps.

use crate::agent::Plugin;
use crate::gate::Gate;
use crate::{Desk, node};
use dhow_servers::{MOTO_KEYS, Process, moto, moto_to_be, python_with_boto3};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// What an object holds, as Python's own archives see it.
pub(crate) const HELD: &str = r#"
import io, json, sys, tarfile, zipfile
def held(name, body):
    if name.endswith(".tgz"):
        with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as archive:
            return {m.name: archive.extractfile(m).read().decode() for m in archive if m.isfile()}
    if name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            assert archive.testzip() is None
            return {n: archive.read(n).decode() for n in archive.namelist() if not n.endswith("/")}
    return body.decode()
"#;

/// What is in a bucket, as boto3 sees it: for each key what it holds. Behind [`HELD`].
const LOOK: &str = r#"
import boto3
s3 = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id="a",
                  aws_secret_access_key="b")
found = {}
for page in s3.get_paginator("list_objects_v2").paginate(Bucket=sys.argv[2]):
    for item in page.get("Contents", []):
        body = s3.get_object(Bucket=sys.argv[2], Key=item["Key"])["Body"].read()
        found[item["Key"]] = held(item["Key"], body)
print(json.dumps(found))
"#;

/// Objects that container steps, or people, might have left there.
const FILL: &str = r#"
import boto3, io, sys, tarfile, zipfile
s3 = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id="a",
                  aws_secret_access_key="b")
s3.create_bucket(Bucket="foreign")
packed = io.BytesIO()
with tarfile.open(fileobj=packed, mode="w:gz") as archive:
    entry = tarfile.TarInfo("whatever"); entry.size = 6
    archive.addfile(entry, io.BytesIO(b"packed"))
s3.put_object(Bucket="foreign", Key="packed.tgz", Body=packed.getvalue())
zipped = io.BytesIO()
with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("a.txt", "zipped" * 1000)
    archive.writestr("inner/b.txt", "stored", compress_type=zipfile.ZIP_STORED)
s3.put_object(Bucket="foreign", Key="two.zip", Body=zipped.getvalue())
for number in range(1005):
    s3.put_object(Bucket="foreign", Key=f"many/{number % 7}/{number}.txt", Body=b"x")
"#;

fn python(script: &str, args: &[&str]) -> String {
    let output = Command::new(python_with_boto3().unwrap()).args(["-c", script]).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn url(server: &Process) -> String {
    format!("http://{}", server.address())
}

/// Makes a bucket.
pub(crate) fn make_bucket(server: &Process, name: &str) {
    const MAKE: &str = r#"
import boto3, sys
boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id="a",
             aws_secret_access_key="b").create_bucket(Bucket=sys.argv[2])
"#;
    python(MAKE, &[&url(server), name]);
}

pub(crate) fn look(server: &Process, bucket: &str) -> Value {
    serde_json::from_str(&python(&[HELD, LOOK].concat(), &[&url(server), bucket])).unwrap()
}

/// The controller's ConfigMap and its Secret, as they are applied to a cluster.
pub(crate) fn repository(address: &str, more: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {{name: workflow-controller-configmap}}
data:
  parallelism: "10"
  artifactRepository: |
    archiveLogs: true
    s3:
      bucket: artifacts
      endpoint: {}
      insecure: true
      keyFormat: "runs/{{{{workflow.creationTimestamp.Y}}}}/{{{{workflow.name}}}}/{{{{pod.name}}}}"
      createBucketIfNotPresent: {{objectLocking: false}}
      accessKeySecret: {{name: bucket-keys, key: access}}
      secretKeySecret: {{name: bucket-keys, key: secret}}
{more}---
apiVersion: v1
kind: Secret
metadata: {{name: bucket-keys}}
data: {{access: YWNjZXNz}}
stringData: {{secret: "{}"}}
"#,
        address, MOTO_KEYS.1
    )
}

/// A workflow that writes a file in all forms and reads each back; one goes to a place of its own, which its `kind` of
/// location names by the field `key`.
pub(crate) fn flow(kind: &str, key: &str) -> String {
    const FLOW: &str = r#"
  entrypoint: main
  templates:
  - name: main
    steps:
    - - {name: write, template: write}
    - - {name: packed, template: cat, arguments: {artifacts: [{name: file, from: "{{steps.write.outputs.artifacts.packed}}"}]}}
      - {name: plain, template: cat, arguments: {artifacts: [{name: file, from: "{{steps.write.outputs.artifacts.plain}}"}]}}
      - {name: zipped, template: list, arguments: {artifacts: [{name: folder, archive: {zip: {}}, from: "{{steps.write.outputs.artifacts.zipped}}"}]}}
      - {name: folder, template: list, arguments: {artifacts: [{name: folder, from: "{{steps.write.outputs.artifacts.folder}}"}]}}
      - {name: part, template: cat, arguments: {artifacts: [{name: file, subPath: file.txt, from: "{{steps.write.outputs.artifacts.folder}}"}]}}
    outputs:
      artifacts: [{name: zipped, from: "{{steps.write.outputs.artifacts.zipped}}"}]
  - name: write
    wasm: {image: tool.wasm, args: [write, /out/file.txt, hello]}
    outputs:
      artifacts:
      - {name: packed, path: /out/file.txt}
      - {name: plain, path: /out/file.txt, archive: {none: {}}}
      - {name: zipped, path: /out, archive: {zip: {}}}
      - {name: folder, path: /out, archive: {none: {}}, KIND: {KEY: "own/{{workflow.name}}/"}}
  - name: cat
    inputs: {artifacts: [{name: file, path: /in/file.txt}]}
    wasm: {image: tool.wasm, args: [cat, /in/file.txt]}
  - name: list
    inputs: {artifacts: [{name: folder, path: /in/folder}]}
    wasm: {image: tool.wasm, args: [ls, /in/folder]}
"#;
    FLOW.replace("KIND", kind).replace("KEY", key)
}

#[test]
fn a_bucket_has_what_argo_would_put_there() {
    let (desk, server) = (Desk::new(), moto().unwrap());
    std::fs::write(desk.path("repository.yaml"), repository(&server.address(), "")).unwrap();
    desk.workflow("flow", &flow("s3", "key"));
    let run = ["workflow", "run", "flow.yaml", "--artifact-repository", "repository.yaml", "--output", "out"];
    let ended = desk.dhow(&run);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(std::fs::read_to_string(desk.path("out/out/file.txt")).unwrap(), "hello");
    let status = desk.status("flow");
    for (step, result) in [
        ("packed", "hello"),
        ("plain", "hello"),
        ("zipped", r#"["file.txt"]"#),
        ("folder", r#"["file.txt"]"#),
        ("part", "hello"),
    ] {
        assert_eq!(node(&status, step)["outputs"]["result"], result, "{step}");
    }
    let found = look(&server, "artifacts");
    let written = node(&status, "write");
    let key = |name: &str| {
        let artifacts = written["outputs"]["artifacts"].as_array().unwrap();
        let artifact = artifacts.iter().find(|artifact| artifact["name"] == name).unwrap();
        artifact["s3"]["key"].as_str().unwrap().to_owned()
    };
    assert!(key("packed").starts_with("runs/20") && key("packed").ends_with("/packed.tgz"), "{found}");
    assert_eq!(found[key("packed")], json!({"file.txt": "hello"}));
    assert_eq!(found[key("plain")], "hello");
    assert!(key("plain").ends_with("/file.txt"), "{found}");
    assert_eq!(found[key("zipped")], json!({"out/file.txt": "hello"}));
    assert_eq!(found["own/flow/file.txt"], "hello");
    assert!(key("main-logs").ends_with("/main.log"), "{found}");
    assert_eq!(found.as_object().unwrap().keys().filter(|key| key.ends_with("/main.log")).count(), 6);
    let of_cat = node(&status, "packed")["outputs"]["artifacts"][0]["s3"]["key"].as_str().unwrap();
    assert_eq!(found[of_cat], "hello\n");
    // No secret is in the history.
    let history = std::fs::read_dir(desk.path(".dhow/workflows")).unwrap().flatten();
    for file in history.filter(|entry| entry.path().is_file()) {
        let bytes = std::fs::read(file.path()).unwrap();
        let secret = MOTO_KEYS.1.as_bytes();
        assert!(!bytes.windows(secret.len()).any(|part| part == secret), "{:?}", file.path());
    }
}

#[test]
fn what_others_put_into_a_bucket_comes_to_a_step() {
    let (desk, server) = (Desk::new(), moto().unwrap());
    python(FILL, &[&url(&server)]);
    let place = format!("endpoint: {}, insecure: true, bucket: foreign, {KEYS}", server.address());
    const KEYS: &str = "accessKeySecret: {name: keys, key: a}, secretKeySecret: {name: keys, key: b}";
    std::fs::create_dir_all(desk.path("secrets/keys")).unwrap();
    std::fs::write(desk.path("secrets/keys/a"), "access\n").unwrap();
    std::fs::write(desk.path("secrets/keys/b"), "secret\n").unwrap();
    desk.workflow(
        "foreign",
        &format!(
            r#"
  entrypoint: main
  templates:
  - name: main
    steps:
    - - {{name: packed, template: packed}}
      - {{name: zipped, template: zipped}}
      - {{name: many, template: many}}
      - {{name: gone, template: gone}}
  - name: packed
    inputs: {{artifacts: [{{name: f, path: /in/f, s3: {{{place}, key: packed.tgz}}}}]}}
    wasm: {{image: tool.wasm, args: [cat, /in/f]}}
  - name: zipped
    inputs: {{artifacts: [{{name: f, path: /in/f, archive: {{zip: {{}}}}, s3: {{{place}, key: two.zip}}}}]}}
    wasm: {{image: tool.wasm, args: [cat, /in/f/inner/b.txt]}}
  - name: many
    inputs: {{artifacts: [{{name: f, path: /in/f, s3: {{{place}, key: many}}}}]}}
    wasm: {{image: tool.wasm, args: [ls, /in/f/4]}}
  - name: gone
    inputs: {{artifacts: [{{name: f, path: /in/f, optional: true, s3: {{{place}, key: nothing}}}}]}}
    wasm: {{image: tool.wasm, args: [ls, /]}}
"#
        ),
    );
    let ended = desk.dhow(&["workflow", "run", "foreign.yaml", "--artifact-secrets", "secrets"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let status = desk.status("foreign");
    assert_eq!(node(&status, "packed")["outputs"]["result"], "packed");
    assert_eq!(node(&status, "zipped")["outputs"]["result"], "stored");
    let many: Vec<String> =
        serde_json::from_str(node(&status, "many")["outputs"]["result"].as_str().unwrap()).unwrap();
    // Of the numbers below 1005 those that leave 4: more than one page of the list has some.
    assert_eq!(many.len(), (0..1005).filter(|number| number % 7 == 4).count());
}

#[test]
fn a_server_that_comes_late_is_waited_for_and_one_that_refuses_is_not() {
    let desk = Desk::new();
    let mut server = moto_to_be().unwrap();
    desk.workflow("late", &flow("s3", "key"));
    let endpoint = url(&server);
    let flags = ["--s3-bucket", "late", "--s3-create-bucket", "--s3-endpoint", &endpoint];
    let mut command = desk.command(&[&["workflow", "run", "late.yaml"], &flags[..]].concat());
    command.env("AWS_ACCESS_KEY_ID", MOTO_KEYS.0).env("AWS_SECRET_ACCESS_KEY", MOTO_KEYS.1);
    command.env("DHOW_LOG", "dhow_argo=info");
    let running = command.spawn().unwrap();
    // The step has ended, and its artifacts have nowhere to go yet.
    desk.wait("late", |status| status["status"]["nodes"].as_object().is_some_and(|nodes| !nodes.is_empty()));
    server.start().unwrap();
    let ended: crate::Ended = running.wait_with_output().unwrap().into();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(look(&server, "late").as_object().unwrap().len(), 4);

    // There is no such bucket, and nobody is to make it.
    desk.workflow("none", &flow("s3", "key"));
    let flags = ["--s3-bucket", "missing", "--s3-endpoint", &endpoint];
    let mut command = desk.command(&[&["workflow", "run", "none.yaml"], &flags[..]].concat());
    command.env("AWS_ACCESS_KEY_ID", MOTO_KEYS.0).env("AWS_SECRET_ACCESS_KEY", MOTO_KEYS.1);
    let ended: crate::Ended = command.output().unwrap().into();
    assert!(ended.code == Some(1) && ended.err.contains("createBucketIfNotPresent"), "{ended:?}");
    // Without keys, and with a Secret that is not there.
    let mut command = desk.command(&[&["workflow", "run", "none.yaml"], &flags[..]].concat());
    let ended: crate::Ended = command.env_remove("AWS_ACCESS_KEY_ID").output().unwrap().into();
    assert!(ended.code == Some(2) && ended.err.contains("AWS_ACCESS_KEY_ID"), "{ended:?}");
    let text =
        repository(&server.address(), "").replace("metadata: {name: bucket-keys}", "metadata: {name: other}");
    std::fs::write(desk.path("wrong.yaml"), text).unwrap();
    let run = ["workflow", "run", "none.yaml", "--name", "n", "--artifact-repository", "wrong.yaml"];
    let ended = desk.dhow(&run);
    assert!(ended.code == Some(2) && ended.err.contains("bucket-keys"), "{ended:?}");
    let text = repository(&server.address(), "").replace("bucket: artifacts", "bukket: artifacts");
    std::fs::write(desk.path("wrong.yaml"), text).unwrap();
    let ended = desk.dhow(&run);
    assert!(ended.code == Some(2) && ended.err.contains("bukket"), "{ended:?}");
}

#[test]
fn a_workflow_chooses_its_repository() {
    let (desk, server) = (Desk::new(), moto().unwrap());
    let described = |bucket: &str| {
        format!(
            "  {bucket}: |\n    s3:\n      bucket: {bucket}\n      endpoint: {}\n      insecure: true\n      \
             createBucketIfNotPresent: {{}}\n      accessKeySecret: {{name: bucket-keys, key: access}}\n      \
             secretKeySecret: {{name: bucket-keys, key: secret}}\n",
            server.address()
        )
    };
    let text = format!(
        "{}---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: artifact-repositories\n  annotations:\n    \
         workflows.argoproj.io/default-artifact-repository: usual\ndata:\n{}{}",
        repository(&server.address(), ""),
        described("usual"),
        described("special")
    );
    std::fs::write(desk.path("all.yaml"), text).unwrap();
    desk.workflow("usual", &flow("s3", "key"));
    desk.workflow("special", &(flow("s3", "key") + "  artifactRepositoryRef: {key: special}\n"));
    desk.workflow("wrong", &(flow("s3", "key") + "  artifactRepositoryRef: {key: spezial}\n"));
    for name in ["usual", "special"] {
        let run = ["workflow", "run", &format!("{name}.yaml"), "--artifact-repository", "all.yaml"];
        let ended = desk.dhow(&run);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let found = look(&server, name);
        assert!(found[format!("own/{name}/file.txt")] == "hello", "{name}: {found}");
        assert!(
            found.as_object().unwrap().keys().any(|key| key.starts_with(&format!("{name}/{name}-write-")))
        );
    }
    let ended = desk.dhow(&["workflow", "run", "wrong.yaml", "--artifact-repository", "all.yaml"]);
    assert!(ended.code == Some(2) && ended.err.contains("did you mean \"special\"?"), "{ended:?}");
}

#[test]
fn steps_beside_argos_agent_use_the_controllers_repository() {
    let (desk, server) = (Desk::new(), moto().unwrap());
    // When a workflow was made is not in what the agent sends.
    let text = repository(&server.address(), "").replace("{{workflow.creationTimestamp.Y}}/", "");
    std::fs::write(desk.path("repository.yaml"), text).unwrap();
    let plugin = Plugin::with(&desk, &["--artifact-repository", "repository.yaml"]);
    let step = |args: &[&str], inputs: Value, outputs: Value| {
        json!({
            "name": "step", "inputs": {"artifacts": inputs}, "outputs": {"artifacts": outputs},
            "plugin": {"wasm": {"image": "./tool.wasm", "args": args}},
        })
    };
    let written = [json!({"name": "f", "path": "/out/f"})];
    let (reply, _) = plugin.run(&step(&["write", "/out/f", "hello"], json!([]), json!(written)));
    let artifacts = &reply["node"]["outputs"]["artifacts"];
    let key = artifacts[0]["s3"]["key"].as_str().unwrap();
    assert!(key.starts_with("runs/wf/") && key.ends_with("/f.tgz"), "{reply}");
    assert_eq!(artifacts[1]["name"], "main-logs", "{reply}");
    assert_eq!(look(&server, "artifacts")[key], json!({"f": "hello"}));
    // The controller hands it to the next step as it was told.
    let mut input = artifacts[0].clone();
    input["path"] = json!("/in/f");
    let (reply, _) = plugin.run(&step(&["cat", "/in/f"], json!([input]), json!([])));
    assert_eq!(reply["node"]["outputs"]["result"], "hello", "{reply}");
}

/// Every request for an object's content shows the customer's key.
const CUSTOMER_KEY: &str = r#"
import base64, hashlib, sys
def check(request):
    path, _, query = request.path.partition("?")
    is_content = "/" in path.strip("/") and not (request.command == "POST" and "uploadId" in query)
    if is_content and request.command in ("GET", "HEAD", "PUT", "POST"):
        said = lambda what: request.headers["x-amz-server-side-encryption-customer-" + what]
        key = base64.b64decode(said("key"))
        assert said("algorithm") == "AES256" and key == sys.argv[2].encode(), key
        assert base64.b64decode(said("key-md5")) == hashlib.md5(key).digest()
        assert "x-amz-server-side-encryption-customer-key-md5" in query, "it is not signed"
"#;

/// Every request is signed with a role's keys for a while, except the one that asks for them.
const ROLE: &str = r#"
def check(request):
    assert "X-Amz-Security-Token=" in request.path and "X-Amz-Credential=ASIA" in request.path, request.path
"#;

const KMS: &str = r#"
import boto3, json, sys
s3 = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id="a",
                  aws_secret_access_key="b")
told = [s3.head_object(Bucket=sys.argv[2], Key=item["Key"])
        for item in s3.list_objects_v2(Bucket=sys.argv[2])["Contents"]]
print(json.dumps([[head.get("ServerSideEncryption"), head.get("SSEKMSKeyId")] for head in told]))
"#;

#[test]
fn servers_are_told_how_to_encrypt() {
    let (desk, server) = (Desk::new(), moto().unwrap());
    let key = "a key of thirty-two bytes, no less".get(..32).unwrap();
    std::fs::create_dir_all(desk.path("secrets/customer")).unwrap();
    let gate = Gate::before(&server, CUSTOMER_KEY, &[key]);
    desk.workflow("flow", &flow("s3", "key"));
    let run = |name: &str, address: &str, options: &str| {
        let more = format!("      encryptionOptions: {{enableEncryption: true, {options}}}\n");
        let text = repository(address, &more).replace("bucket: artifacts", &format!("bucket: {name}"));
        std::fs::write(desk.path("repository.yaml"), text).unwrap();
        let flags = ["--artifact-repository", "repository.yaml", "--artifact-secrets", "secrets"];
        desk.dhow(&[&["workflow", "run", "flow.yaml", "--name", name], &flags[..]].concat())
    };
    let heads = |bucket: &str| -> Vec<(Option<String>, Option<String>)> {
        serde_json::from_str(&python(KMS, &[&url(&server), bucket])).unwrap()
    };
    let ended = run("own", &server.address(), "");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(heads("own").iter().all(|(kind, _)| kind.as_deref() == Some("AES256")), "{:?}", heads("own"));
    let ended =
        run("kms", &server.address(), "kmsKeyId: a-key, kmsEncryptionContext: '{\"for\": \"tests\"}'");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let wanted = (Some("aws:kms".to_owned()), Some("a-key".to_owned()));
    assert!(heads("kms").iter().all(|found| *found == wanted), "{:?}", heads("kms"));

    let customer = "serverSideCustomerKeySecret: {name: customer, key: key}";
    std::fs::write(desk.path("secrets/customer/key"), format!("{key}\n")).unwrap();
    let ended = run("customer", &gate.address(), customer);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(look(&server, "customer")["own/customer/file.txt"], "hello");
    let ended = run("none", &gate.address(), "");
    assert!(ended.code == Some(1) && ended.err.contains("AuthenticationRequired"), "{ended:?}");
    std::fs::write(desk.path("secrets/customer/key"), "short").unwrap();
    let ended = run("short", &gate.address(), customer);
    assert!(ended.code == Some(2) && ended.err.contains("32 bytes, found 5"), "{ended:?}");
}

#[test]
fn a_role_is_assumed_with_the_environments_keys() {
    let (desk, server) = (Desk::new(), moto().unwrap());
    let gate = Gate::before(&server, ROLE, &[]);
    let role = "arn:aws:iam::123456789012:role/artifacts";
    let text = repository(&gate.address(), &format!("      roleARN: {role}\n"));
    let own = "      accessKeySecret: {name: bucket-keys, key: access}\n      secretKeySecret: {name: bucket-keys, key: secret}\n";
    assert!(text.contains(own));
    std::fs::write(desk.path("repository.yaml"), text.replace(own, "")).unwrap();
    desk.workflow("flow", &flow("s3", "key"));
    let run = |name: &str, sts: &str| -> crate::Ended {
        let mut command = desk.command(&["workflow", "run", "flow.yaml", "--name", name]);
        command.args(["--artifact-repository", "repository.yaml"]).env("AWS_ENDPOINT_URL_STS", sts);
        command.env("AWS_ACCESS_KEY_ID", MOTO_KEYS.0).env("AWS_SECRET_ACCESS_KEY", MOTO_KEYS.1);
        command.output().unwrap().into()
    };
    let ended = run("assumed", &url(&server));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(look(&server, "artifacts")["own/assumed/file.txt"], "hello");
    // Who refuses is named, and no key is.
    let ended = run("refused", &gate.url());
    assert!(ended.code == Some(1) && ended.err.contains(role), "{ended:?}");
    assert!(!ended.err.contains(MOTO_KEYS.1), "{ended:?}");
    // With keys of its own nobody is asked for others, as in Argo.
    std::fs::write(desk.path("repository.yaml"), text.replace(&gate.address(), &server.address())).unwrap();
    let ended = run("own", &gate.url());
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// Bytes of the artifact that passes, and of memory that it may take on its way.
const LARGE: u64 = 512 << 20;
const MEMORY: u64 = 64 << 20;

/// The most memory that a run took, in bytes.
fn peak(desk: &Desk, name: &str, server: &Process) -> u64 {
    let endpoint = url(server);
    let file = format!("{name}.yaml");
    let input = format!("data={}", desk.path("data").display());
    let run = ["workflow", "run", &file, "--artifact", &input, "--s3-bucket", "large", "--s3-create-bucket"];
    let mut command = desk.command(&[&run[..], &["--s3-endpoint", &endpoint]].concat());
    command.env("AWS_ACCESS_KEY_ID", MOTO_KEYS.0).env("AWS_SECRET_ACCESS_KEY", MOTO_KEYS.1);
    peak_of(command, name)
}

/// The most memory that a command took, in bytes.
#[allow(clippy::zombie_processes, reason = "wait4 waits for it, and says what it took")]
pub(crate) fn peak_of(mut command: Command, name: &str) -> u64 {
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    let mut status = 0;
    // SAFETY: all zeroes is a value of this plain struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to values that outlive the call, and nobody else waits for the child.
    assert_eq!(unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) }, pid);
    assert_eq!(status, 0, "{name}");
    u64::try_from(usage.ru_maxrss).unwrap() << 10
}

#[test]
fn a_large_artifact_passes_through_little_memory() {
    let (desk, server) = (Desk::new(), moto().unwrap());
    let data = std::fs::File::create(desk.path("data")).unwrap();
    let flow = r#"
  entrypoint: pass
  arguments: {artifacts: [{name: data}]}
  templates:
  - name: pass
    inputs: {artifacts: [{name: data, path: /data/file}]}
    wasm: {image: tool.wasm, args: [args]}
    outputs:
      artifacts:
      - {name: packed, path: /data/file}
      - {name: plain, path: /data/file, archive: {none: {}}}
"#;
    desk.workflow("small", flow);
    desk.workflow("large", flow);
    data.set_len(1).unwrap();
    let small = peak(&desk, "small", &server);
    data.set_len(LARGE).unwrap();
    let large = peak(&desk, "large", &server);
    assert!(large < small + MEMORY, "{small} bytes without it, {large} with it");
}
