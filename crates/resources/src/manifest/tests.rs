//! What a manifest means, and what each mistake in it is answered with.

use super::*;
use dhow_blocks::grants::Ask;

/// Every field that there is.
const FULL: &str = include_str!("../../tests/data/full.toml");

fn parse(text: &str) -> Result<Manifest, ResourceErrors> {
    Manifest::parse(text, Path::new("site/dhow.toml"))
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn an_empty_manifest_has_the_defaults() {
    let manifest = parse("").unwrap();
    assert!(manifest.apps.is_empty());
    assert_eq!(manifest.host, HostConfig::new(Path::new("site")));
    assert_eq!(manifest.host.addr.to_string(), "127.0.0.1:8080");
    assert_eq!(manifest.host.data_dir, Path::new("site/.dhow"));
    let manifest = parse("[apps.a]\nmodule = 'a.wasm'").unwrap();
    let app = &manifest.apps["a"];
    assert_eq!((app.reuse, &app.grants, &app.limits), (None, &Grants::default(), &LimitsConfig::default()));
    assert_eq!((app.routes.len(), app.line), (0, 1));
}

#[test]
fn every_field_is_read() {
    let manifest = parse(FULL).unwrap();
    assert_eq!(manifest.host.addr.to_string(), "127.0.0.1:8000");
    assert_eq!(manifest.host.api_addr, None);
    assert_eq!(manifest.host.management_addr.unwrap().to_string(), "127.0.0.1:9191");
    assert_eq!(manifest.host.data_dir, Path::new("site/data"));
    assert_eq!(manifest.resource_dirs(), [Path::new("site/res"), Path::new("/etc/res")]);

    assert_eq!(
        manifest.trust,
        TrustConfig {
            store: Some("site/trust.txt".into()),
            require_signed: true,
            require_claims: true,
            policy: Some("site/policies".into()),
            opa: Some("http://127.0.0.1:8181/v1/data/dhow".to_owned()),
            policy_timeout: Some(Duration::from_secs(1)),
            policy_per_invocation: Some(Duration::from_secs(10)),
        }
    );

    let front = &manifest.apps["front"];
    assert_eq!(front.module, ModuleSource::Path("site/front.wasm".into()));
    assert_eq!(front.routes, strings(&["/", "/api"]));
    assert_eq!(front.hosts, strings(&["shop.localhost", "*.shop.localhost"]));
    assert_eq!(front.args, strings(&["--x"]));
    assert_eq!(front.env["KEY"], "value");
    assert_eq!(front.env["PORT"], "8080");
    let config: Vec<_> = front.config.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(config, [("debug", "true"), ("greeting", "hello"), ("mask", "255"), ("ratio", "1.5")]);
    assert_eq!(front.dirs, [DirConfig { host: "site/data".into(), guest: "/data".into(), write: true }]);
    assert_eq!((front.reuse, front.health.as_deref()), (Some(100), Some("/healthz")));
    assert_eq!(front.filters.iter().map(|filter| filter.app_id.as_str()).collect::<Vec<_>>(), ["Back_2.x"]);
    let bindings: Vec<_> = front.bindings.iter().map(|b| (b.capability.as_str(), b.name.as_str())).collect();
    assert_eq!(bindings, [("httpserver", "default"), ("keyvalue", "audit")]);
    assert_eq!(front.bindings[0].values["PORT"], "8081");
    assert_eq!(front.bindings[1].component.as_deref(), Some("redis"));
    let allowed = [
        Ask::State("statestore"),
        Ask::Invoke("recommend"),
        Ask::Publish { pubsub: "pubsub", topic: "orders" },
        Ask::Subscribe { pubsub: "pubsub", topic: "anything" },
        Ask::Binding("mail-out"),
        Ask::Secret { store: "vault", name: "db-password" },
        Ask::Configuration("configstore"),
        Ask::Lock("lockstore"),
        Ask::Sequencer("orders"),
        Ask::Blob("pictures"),
        Ask::Cryption("vault"),
        Ask::Email("post-office"),
        Ask::Job("nightly"),
        Ask::Http { scheme: "https", host: "api.example.com", port: 443 },
        Ask::Connect { host: "127.0.0.1", port: 5432 },
        Ask::Listen { host: "127.0.0.1", port: 0 },
    ];
    for ask in allowed {
        assert_eq!(front.grants.check(ask), Ok(()));
    }
    let refused = [
        Ask::Publish { pubsub: "pubsub", topic: "other" },
        Ask::Binding("post"),
        Ask::Secret { store: "vault", name: "api-key" },
        Ask::Job("hourly"),
    ];
    for ask in refused {
        assert!(front.grants.check(ask).is_err(), "{ask:?}");
    }
    let build = front.build.as_ref().unwrap();
    assert_eq!(build.command, "cargo build --release --target wasm32-wasip2");
    assert_eq!(build.watch, [Path::new("site/src"), Path::new("site/wit")]);
    assert_eq!(
        front.limits,
        LimitsConfig {
            memory: Some(256 << 20),
            timeout: Some(Duration::from_secs(30)),
            concurrency: Some(128),
            queue: Some(0),
            request_body: Some(16 << 20),
            response_body: Some(64 << 20),
            tables: Some(100_000),
            instances: Some(64),
            host_calls: Some(64),
            handles: Some(10_000),
        }
    );

    let back = &manifest.apps["Back_2.x"];
    assert_eq!(back.module, ModuleSource::Url("https://example.com/back.wasm".into()));
    let key = Some("site/keys/cosign.pub".into());
    let shop = ModuleSource::Oci { reference: "oci://ghcr.io/acme/shop:^1.2".into(), cosign_key: key };
    assert_eq!(manifest.apps["shop"].module, shop);
    assert_eq!((back.routes.clone(), back.hosts.clone()), (strings(&["/"]), strings(&["back.localhost"])));
    let limits = manifest.limits("Back_2.x");
    assert_eq!((limits.memory, limits.timeout), (Some(1 << 20), Some(Duration::from_millis(500))));
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let app = "[apps.a]\nmodule = 'a.wasm'\n";
    // What is appended to a small app (or, from column 0 on, a whole manifest), and what the error begins with
    // and contains.
    let cases: &[(&str, &str, &str)] = &[
        ("rout = '/'", "3:1: apps.a: unknown field `rout`", "did you mean `route`?"),
        ("zzz = 1", "3:1: apps.a: unknown field `zzz`", "expected one of module, cosign_key, routes"),
        ("routes = 'x'", "3:10: apps.a.routes: must be a list of strings, found a string", ""),
        ("routes = [1]", "3:11: apps.a.routes[0]: must be a string", "found an integer"),
        ("routes = ['x']", "3:11: apps.a.routes: the route `x` does not begin with `/`", "`/x`"),
        ("routes = ['/x/*']", "3:11: apps.a.routes: the route `/x/*` has a wildcard", "`/x/`"),
        ("routes = ['/a/../b']", "3:11: apps.a.routes", "dot segments"),
        ("route = '/a?b'", "3:9: apps.a.route: the route `/a?b` is not a path prefix", ""),
        ("routes = ['/']\nroute = '/x'", "4:9: apps.a.route: both `route` and `routes`", ""),
        (
            "hosts = ['shop.localhost:80']",
            "3:10: apps.a.hosts: `shop.localhost:80`",
            "without scheme and port",
        ),
        ("hosts = ['a.*.b']", "3:10: apps.a.hosts: `a.*.b` is not a host name", "*.example.com"),
        ("args = ['a\\u0000']", "", ""),
        ("args = [\"a\\u0000\"]", "3:9: apps.a.args: an argument has a NUL", ""),
        ("env = { 'A=B' = 'x' }", "3:9: apps.a.env: `A=B` cannot be the name", "without `=`"),
        ("env = { A = \"\\u0000\" }", "3:13: apps.a.env.A: the value has a NUL", ""),
        ("env = { A = [] }", "3:13: apps.a.env.A: must be a single value, found a list", ""),
        ("dirs = [{ host = 'x', guest = 'data' }]", "3:31: apps.a.dirs[0].guest", "\"/data\""),
        ("dirs = [{ host = 'x', guest = '/a/../b' }]", "3:31: apps.a.dirs[0].guest", "without `..`"),
        ("dirs = [{ host = 'x' }]", "3:9: apps.a.dirs[0]: `guest` is missing", ""),
        (
            "dirs = [{host='x',guest='/d'},{host='y',guest='/d/'}]",
            "3:31: apps.a.dirs[1]: the guest path",
            "twice",
        ),
        (
            "dirs = [{ host = 'x', guest = '/d', write = 1 }]",
            "3:45: apps.a.dirs[0].write: must be true or",
            "",
        ),
        ("reuse = 0", "3:9: apps.a.reuse: a limit of 0", "at least 1"),
        ("reuse = -1", "3:9: apps.a.reuse: `-1` is out of range", "expected 1 to"),
        ("limits = { queue = -1 }", "3:20: apps.a.limits.queue: `-1` is out of range", "expected 0 to"),
        ("limits = { timeout = 30 }", "3:22: apps.a.limits.timeout: `30` has no unit", "\"30s\""),
        ("limits = { timeout = '30' }", "3:22: apps.a.limits.timeout: `30` is not a duration", "unit"),
        ("limits = { timeout = '0s' }", "3:22: apps.a.limits.timeout: a limit of 0", ""),
        ("limits = { memory = '1 potato' }", "3:21: apps.a.limits.memory: `1 potato` is not a size", "MiB"),
        ("limits = { memory = 0 }", "3:21: apps.a.limits.memory: a limit of 0", "default"),
        ("limits = { concurrency = 0 }", "3:26: apps.a.limits.concurrency: a limit of 0", ""),
        ("limits = { concurrency = 1.5 }", "3:26: apps.a.limits.concurrency: must be an integer", "decimal"),
        ("limits = { memroy = 1 }", "3:12: apps.a.limits: unknown field `memroy`", "did you mean `memory`?"),
        ("grants = { stat = [] }", "3:12: apps.a.grants: unknown field `stat`", "did you mean `state`?"),
        (
            "grants = { publsh = [] }",
            "3:12: apps.a.grants: unknown field `publsh`",
            "did you mean `publish`?",
        ),
        ("grants = { secrets = ['a*b*'] }", "3:23: apps.a.grants.secrets[0]", "more than one *"),
        ("grants = { jobs = 'x' }", "3:19: apps.a.grants.jobs: must be a list of strings", "a string"),
        ("grants = { lock = [''] }", "3:20: apps.a.grants.lock[0]", "it is empty"),
        ("grants = { http = ['ftp://x'] }", "3:20: apps.a.grants.http[0]", "scheme must be http"),
        ("grants = { connect = ['http://x:1'] }", "3:23: apps.a.grants.connect", "`x:1`"),
        ("bindings = ['x']", "3:13: apps.a.bindings[0]: must be", ""),
        ("bindings = [{}]", "3:13: apps.a.bindings[0]: `capability` is missing", "component"),
        (
            "bindings = [{ capability = 'wascc:keyvalu' }]",
            "3:28: apps.a.bindings[0].capability: `wascc:keyvalu` is no capability",
            "did you mean `keyvalue`?",
        ),
        (
            "bindings = [{ capability = 'actor', binding = 'M' }]",
            "3:13: apps.a.bindings[0]: an actor needs the app",
            "component",
        ),
        (
            "bindings = [{ capability = 'keyvalue' }, { capability = 'wascap:keyvalue' }]",
            "3:42: apps.a.bindings[1]: the binding `default` of keyvalue is given twice",
            "another name",
        ),
        (
            "bindings = [{ capability = 'keyvalue', conponent = 'x' }]",
            "3:40: apps.a.bindings[0]: unknown field `conponent`",
            "did you mean `component`?",
        ),
        ("build = { watch = [] }", "3:9: apps.a.build: `command` is missing", ""),
        ("[apps.-b]\nmodule='b'", "3:7: apps.-b: `-b` cannot be an app-id", "63"),
        ("[apps.'b||c']\nmodule='b'", "3:7: apps.b||c: `b||c` cannot be an app-id", ""),
        ("[apps.b]", "3:7: apps.b: the app has no module", "http(s) URL"),
        ("[apps.b]\nmodule = ''", "4:10: apps.b.module: the path is empty", ""),
        (
            "[apps.b]\nmodule = 'ftp://x'",
            "4:10: apps.b.module: modules cannot be fetched over `ftp`",
            "https://",
        ),
        (
            "[apps.b]\nmodule = 'oci://x'",
            "4:10: apps.b.module: the reference names no registry",
            "oci://<registry>",
        ),
        (
            "[apps.b]\nmodule = 'b'\ncosign_key = 'k'",
            "5:14: apps.b.cosign_key: only modules in a registry",
            "oci://",
        ),
        ("[host]\naddr = '8080'", "4:8: host.addr: `8080` is not an address", "\"127.0.0.1:8080\""),
        ("[host]\napi_addr = false", "4:12: host.api_addr: false is not an address", "\"off\""),
        ("[host]\nadr = '127.0.0.1:1'", "4:1: host: unknown field `adr`", "did you mean `addr`?"),
        ("[defaults]\nlimit = 1", "4:1: defaults: unknown field `limit`", "did you mean `limits`?"),
        ("[app.b]\nmodule = 'b'", "3:2: unknown field `app`", "did you mean `apps`?"),
        ("x = ", "3:", ""),
        ("module = 'twice'", "3:", "duplicate key"),
    ];
    for (text, begin, part) in cases {
        let result = parse(&format!("{app}{text}"));
        if begin.is_empty() {
            // A literal string has no escapes: nothing is wrong with it.
            assert!(result.is_ok(), "{text}: {result:?}");
            continue;
        }
        let errors = result.expect_err(text).to_string();
        assert!(errors.starts_with(&format!("site/dhow.toml:{begin}")), "{text}: {errors}");
        assert!(errors.contains(part), "{text}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{text}: {errors}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let errors = parse("zap = 1\n[apps.a]\nrout = '/'\n[host]\naddr = 'x'\n").unwrap_err();
    let lines: Vec<usize> = errors.errors().iter().map(|error| error.line).collect();
    assert_eq!(lines, [1, 2, 3, 5], "{errors}");
}

#[test]
fn fields_of_the_host_at_the_top_are_told_where_they_belong() {
    let errors = parse("addr = '127.0.0.1:1'\nadr = 1\n[apps.a]\nmodule = 'a'\n").unwrap_err().to_string();
    let [first, second] = errors.lines().collect::<Vec<_>>()[..] else { panic!("{errors}") };
    assert!(
        first.ends_with("1:1: unknown field `addr`; it is a field of `[host]`: write it below that line"),
        "{first}"
    );
    assert!(second.contains("expected one of host, trust, defaults, apps"), "{second}");
}

#[test]
fn a_route_belongs_to_one_app() {
    let two = |first: &str, second: &str| {
        parse(&format!("[apps.a]\nmodule='a'\n{first}\n[apps.b]\nmodule='b'\n{second}")).map(|_| ())
    };
    let clash = two("routes = ['/', '/api']", "routes = ['/x', '/api/']").unwrap_err().to_string();
    let expected = "site/dhow.toml:6:17: apps.b.routes: app \"b\" claims the route `/api`, which app \"a\" already \
                    claims in line 3";
    assert!(clash.starts_with(expected), "{clash}");

    let cases = [
        ("route = '/'", "route = '/'", false),
        ("route = '/'", "route = '/b'", true),
        ("route = '/'", "hosts = ['b.localhost']", true),
        ("hosts = ['b.localhost']", "hosts = ['c.localhost', 'B.localhost']", false),
        ("hosts = ['b.localhost']", "hosts = ['*.localhost']", true),
        ("routes = ['/', '/']", "", false),
        ("", "", true),
    ];
    for (first, second, fine) in cases {
        assert_eq!(two(first, second).is_ok(), fine, "{first} and {second}");
    }
}

#[test]
fn filters_are_other_apps_without_filters() {
    let two = |first: &str, second: &str| {
        parse(&format!("[apps.a]\nmodule='a'\n{first}\n[apps.b]\nmodule='b'\n{second}")).map(|_| ())
    };
    for (first, second, expected) in [
        ("filters = ['b']", "", ""),
        ("filters = ['bb']", "", "3:12: apps.a.filters: there is no app `bb`"),
        ("filters = ['a']", "", "3:12: apps.a.filters: an app cannot be its own filter"),
        ("filters = ['b']", "filters = ['a']", "3:12: apps.a.filters: app `b` has filters itself"),
        ("filters = [1]", "", "3:12: apps.a.filters"),
    ] {
        match two(first, second) {
            Ok(()) => assert_eq!(expected, "", "{first} {second}"),
            Err(errors) => {
                assert!(!expected.is_empty() && errors.to_string().contains(expected), "{first}: {errors}");
            }
        }
    }
}

#[test]
fn limits_come_from_the_app_and_then_from_the_defaults() {
    let manifest = parse(
        "[defaults.limits]\nmemory = '1MiB'\nqueue = 7\n[apps.a]\nmodule = 'a'\nlimits = { memory = '2MiB' }\n",
    )
    .unwrap();
    let limits = manifest.limits("a");
    assert_eq!((limits.memory, limits.queue, limits.timeout), (Some(2 << 20), Some(7), None));
    assert_eq!(manifest.limits("unknown").memory, Some(1 << 20));
}

#[test]
fn debug_and_errors_show_no_values() {
    let text = "[apps.a]\nmodule='a'\nenv = { PASSWORD = 'hunter2' }\nconfig = { token = 'hunter2' }\n";
    let shown = format!("{:?}", parse(text).unwrap());
    assert!(shown.contains("PASSWORD") && !shown.contains("hunter2"), "{shown}");
    let errors = parse(&text.replace("'hunter2'", "{ x = 'hunter2' }")).unwrap_err().to_string();
    assert!(!errors.contains("hunter2"), "{errors}");
}

#[test]
fn hostile_manifests_are_refused() {
    let huge = "#".repeat(crate::MAX_FILE_BYTES as usize + 1);
    assert!(parse(&huge).unwrap_err().to_string().contains("larger than 4 MiB"));
    let deep = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(parse(&deep).is_err());
    let dotted = format!("{}a = 1", "a.".repeat(100_000));
    assert!(parse(&dotted).is_err());
    let many: String = (0..10_000).map(|number| format!("x{number} = 1\n")).collect();
    assert_eq!(parse(&many).unwrap_err().errors().len(), 50);
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Manifest::load(&dir.path().join("dhow.toml")).unwrap_err().to_string();
    assert!(missing.contains("dhow.toml: cannot be read"), "{missing}");
    assert!(Manifest::load(dir.path()).unwrap_err().to_string().contains("is not a file"));
    let binary = dir.path().join("dhow.toml");
    std::fs::write(&binary, b"# fine\n# \xff\n").unwrap();
    assert!(
        Manifest::load(&binary).unwrap_err().to_string().contains("dhow.toml:2:1: this line is not UTF-8")
    );
}
