//! skopeo, buildah and oras: what they push is run, and what is pushed here they read.

use crate::support::{guest, guest_file};
use crate::{PROGRAM, Shop, tool};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// What the program prints when it is run from its file.
fn expected(shop: &Shop) -> String {
    shop.dhow(&["run", &guest(PROGRAM).to_string_lossy(), "--", "x"])
}

#[track_caller]
fn runs(shop: &Shop, rest: &str) {
    let found = shop.dhow(&["run", &shop.reference(rest), "--", "x"]);
    assert_eq!(found, expected(shop), "{rest}");
}

#[test]
fn skopeo_copies_what_was_pushed_and_the_copy_runs() {
    let shop = Shop::new();
    let pinned = shop.push(PROGRAM, "hello:1");
    let to = |rest: &str| format!("docker://{}/{rest}", shop.registry.address());
    let plain = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    let copy = |from: &str, into: &str| {
        let args = [&["--insecure-policy", "copy", "-q"][..], &plain, &[from, into]].concat();
        tool(shop.setting.path(), "skopeo", &args, &[])
    };
    copy(&to("hello:1"), &to("copy:2"));
    runs(&shop, "copy:2");
    assert_eq!(
        shop.dhow(&["pull", &shop.reference("copy:2")]).split('@').nth(1).map(str::trim),
        pinned.split('@').nth(1)
    );
    copy(&to("hello:1"), "oci:layout:1");
    let index = fs::read_to_string(shop.setting.path().join("layout/index.json")).unwrap();
    assert!(index.contains(pinned.split('@').nth(1).unwrap()), "{index}");
    let said =
        tool(shop.setting.path(), "skopeo", &["inspect", "--raw", "--tls-verify=false", &to("hello:1")], &[]);
    let manifest: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
}

/// Builds images without a daemon, in folders of its own.
struct Buildah<'a> {
    shop: &'a Shop,
    args: Vec<String>,
    env: Vec<(&'static str, String)>,
}

impl<'a> Buildah<'a> {
    fn new(shop: &'a Shop) -> Buildah<'a> {
        let folder = shop.setting.path();
        let [root, run] = ["storage", "run"].map(|name| folder.join(name).to_string_lossy().into_owned());
        let args = ["--storage-driver", "vfs", "--root", &root, "--runroot", &run].map(str::to_owned);
        shop.setting.file("policy.json", br#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
        let containers = "[engine]\ncgroup_manager = \"cgroupfs\"\n[containers]\ndefault_ulimits = [\"nofile=1024:4096\"]\n";
        let containers = shop.setting.file("containers.conf", containers.as_bytes());
        let env = vec![
            ("CONTAINERS_CONF", containers.to_string_lossy().into_owned()),
            ("BUILDAH_ISOLATION", "chroot".to_owned()),
            ("TMPDIR", folder.to_string_lossy().into_owned()),
        ];
        fs::copy(guest(PROGRAM), folder.join("app.wasm")).unwrap();
        Buildah { shop, args: args.to_vec(), env }
    }

    fn run(&self, args: &[&str]) -> String {
        let args: Vec<&str> = self.args.iter().map(String::as_str).chain(args.iter().copied()).collect();
        let env: Vec<(&str, &str)> = self.env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        tool(self.shop.setting.path(), "buildah", &args, &env)
    }

    fn policy(&self) -> String {
        self.shop.setting.path().join("policy.json").to_string_lossy().into_owned()
    }

    fn push(&self, image: &str, format: &str, rest: &str) {
        let to = format!("docker://{}/{rest}", self.shop.registry.address());
        let policy = self.policy();
        self.run(&[
            "push",
            "-q",
            "--signature-policy",
            &policy,
            "--tls-verify=false",
            "--format",
            format,
            image,
            &to,
        ]);
    }
}

#[test]
fn images_of_buildah_run() {
    let shop = Shop::new();
    let buildah = Buildah::new(&shop);
    shop.setting.file("One", b"FROM scratch\nCOPY app.wasm /\nENTRYPOINT [\"/app.wasm\"]\n");
    shop.setting.file(
        "Layers",
        b"FROM scratch\nCOPY app.wasm /bin/old.wasm\nCOPY One /app.wasm\nCOPY app.wasm /app.wasm\nENTRYPOINT [\"app.wasm\", \"y\"]\n",
    );
    let policy = buildah.policy();
    for (file, platform) in [("One", "wasi/wasm"), ("Layers", "linux/amd64")] {
        let build =
            ["build", "-q", "--signature-policy", &policy, "--layers", "--platform", platform, "-f", file];
        buildah.run(&[&build[..], &["-t", &format!("localhost/{}", file.to_lowercase()), "."]].concat());
    }
    for (image, format, rest) in [
        ("localhost/one", "oci", "one:oci"),
        ("localhost/one", "v2s2", "one:docker"),
        ("localhost/layers", "oci", "layers:oci"),
    ] {
        buildah.push(image, format, rest);
        runs(&shop, rest);
    }
    // By a folder: to a registry, skopeo would copy the layer with gzip that it knows to be there.
    for (format, tag) in [("zstd", "zstd"), ("zstd:chunked", "chunked")] {
        let place = shop.registry.address();
        let (from, to) = (format!("docker://{place}/one:oci"), format!("docker://{place}/packed:{tag}"));
        let folder = format!("oci:packed-{tag}:1");
        let skopeo = |args: &[&str]| {
            let args = [&["--insecure-policy", "copy", "-q", "--format", "oci"], args].concat();
            tool(shop.setting.path(), "skopeo", &args, &[]);
        };
        skopeo(&["--src-tls-verify=false", "--dest-compress-format", format, &from, &folder]);
        skopeo(&["--dest-tls-verify=false", &folder, &to]);
        let said = tool(shop.setting.path(), "skopeo", &["inspect", "--raw", "--tls-verify=false", &to], &[]);
        let manifest: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
        runs(&shop, &format!("packed:{tag}"));
    }
    // An index: the part for Wasm is taken.
    buildah.run(&["manifest", "create", "all", "localhost/layers", "localhost/one"]);
    let to = format!("docker://{}/all:1", shop.registry.address());
    buildah.run(&[
        "manifest",
        "push",
        "--signature-policy",
        &policy,
        "--tls-verify=false",
        "--all",
        "all",
        &to,
    ]);
    runs(&shop, "all:1");
    // And what is pushed here, buildah's libraries take.
    shop.push(PROGRAM, "ours:1");
    let from = format!("docker://{}/ours:1", shop.registry.address());
    tool(
        shop.setting.path(),
        "skopeo",
        &["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &from, "dir:ours"],
        &[],
    );
    let hex = dhow_artifacts::digest::Digest::sha256(&fs::read(guest(PROGRAM)).unwrap()).hex().to_owned();
    assert!(shop.setting.path().join("ours").join(hex).is_file());
}

/// The Python that has oras.
fn oras() -> PathBuf {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or(home);
    let python = cache.expect("a home").join("dhow/guests/oras/bin/python");
    assert!(python.exists(), "{} is missing: run cargo xtask setup", python.display());
    python
}

#[test]
fn oras_pushes_in_every_media_type_and_pulls_what_was_pushed() {
    let shop = Shop::new();
    let folder = shop.setting.path();
    fs::copy(guest(PROGRAM), folder.join("app.wasm")).unwrap();
    fs::create_dir(folder.join("site")).unwrap();
    fs::copy(guest(PROGRAM), folder.join("site/app.wasm")).unwrap();
    let python = |script: &str| {
        let program = oras();
        tool(folder, &program.to_string_lossy(), &["-c", script], &[])
    };
    let address = shop.registry.address();
    // The layer, and the configuration where there has to be one.
    let cases = [
        ("today", "app.wasm:application/wasm", "application/vnd.wasm.config.v0+json"),
        ("component", "app.wasm:application/vnd.bytecodealliance.wasm.component.layer.v0+wasm", ""),
        (
            "solo",
            "app.wasm:application/vnd.module.wasm.content.layer.v1+wasm",
            "application/vnd.module.wasm.config.v1+json",
        ),
        (
            "older",
            "app.wasm:application/vnd.wasm.content.layer.v1+wasm",
            "application/vnd.wasm.config.v1+json",
        ),
        ("any", "app.wasm:application/octet-stream", ""),
        ("nothing-said", "app.wasm", ""),
        ("folder", "site", ""),
    ];
    shop.setting.file("config.json", br#"{"architecture": "wasm", "os": "wasip1"}"#);
    for (tag, file, config) in cases {
        let config = if config.is_empty() { "None".to_owned() } else { format!("\"config.json:{config}\"") };
        python(&format!(
            "import oras.client\nc = oras.client.OrasClient(insecure=True)\n\
             c.push(target='{address}/app:{tag}', files=['{file}'], manifest_config={config}, quiet=True)"
        ));
        runs(&shop, &format!("app:{tag}"));
    }
    shop.push(PROGRAM, "ours:1");
    python(&format!(
        "import oras.client\nc = oras.client.OrasClient(insecure=True)\nc.pull(target='{address}/ours:1', outdir='got')"
    ));
    let got = folder.join("got").join(format!("{PROGRAM}.wasm"));
    assert_eq!(fs::read(got).unwrap(), fs::read(guest(PROGRAM)).unwrap());
    // Files that are no module are refused with what they are.
    shop.setting.file("page.html", b"<!doctype html><p>hello");
    python(&format!(
        "import oras.client\nc = oras.client.OrasClient(insecure=True)\n\
         c.push(target='{address}/page:1', files=['page.html:text/html'], quiet=True)"
    ));
    let error = shop.refused(&["run", &shop.reference("page:1")]);
    assert!(error.contains("is not WebAssembly, it looks like"), "{error}");
}

#[test]
fn a_module_in_a_tar_archive_of_another_tool_is_found() {
    // GNU tar writes names, owners and long names in its own way.
    let shop = Shop::new();
    let folder = shop.setting.path();
    let long = format!("{}/{}", "very-long-folder-name".repeat(6), "app.wasm");
    fs::create_dir_all(folder.join("root").join(Path::new(&long).parent().unwrap())).unwrap();
    fs::copy(guest_file(&format!("{PROGRAM}.wasm")), folder.join("root").join(&long)).unwrap();
    for (format, tag) in [("gnu", "gnu"), ("posix", "posix")] {
        tool(folder, "tar", &["-C", "root", &format!("--format={format}"), "-czf", "site.tar.gz", "."], &[]);
        let address = shop.registry.address();
        let script = format!(
            "import oras.client\nc = oras.client.OrasClient(insecure=True)\n\
             c.push(target='{address}/long:{tag}', files=['site.tar.gz:application/vnd.oci.image.layer.v1.tar+gzip'], quiet=True)"
        );
        tool(folder, &oras().to_string_lossy(), &["-c", &script], &[]);
        runs(&shop, &format!("long:{tag}"));
    }
}
