//! Multi-app run files: what they mean, what wins, and what each mistake in them is answered with.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod mistakes;

use dhow_resources::multi_app::{App, AppProtocol, HealthCheck, LogDestination, LogLevel, MultiApp};
use mistakes::{Mistake, check};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// As the quickstart of pub/sub has it.
const QUICKSTART: &str = "\
version: 1
common:
  resourcesPath: ../components/
apps:
  - appID: checkout-sdk
    appDirPath: ./checkout/
    command: [\"python3\", \"app.py\"]
  - appID: order-processor
    appDirPath: ./order-processor/
    appPort: 6002
    command: [\"uvicorn\", \"app:app\", \"--port\", \"6002\"]
";

/// A folder with the files of the quickstart, and a home beside it.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        let site = Site { dir: tempfile::tempdir().unwrap() };
        for folder in ["components", "home", "run/checkout", "run/order-processor", "run/my app"] {
            fs::create_dir_all(site.path(folder)).unwrap();
        }
        site
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        path
    }

    /// In errors the folder of the file is shown as `RUN` and the home as `HOME`.
    fn read(&self, text: &str) -> Result<MultiApp, String> {
        let run = self.path("run");
        let home = self.path("home");
        MultiApp::parse(text, &run.join("dapr.yaml"), Some(&home)).map_err(|errors| {
            let told = errors.to_string().replace(&run.display().to_string(), "RUN");
            told.replace(&home.display().to_string(), "HOME")
        })
    }

    fn app(&self, common: &str, app: &str) -> App {
        let text = format!("version: 1\ncommon: {{{common}}}\napps:\n- {{appDirPath: checkout, {app}}}\n");
        self.read(&text).unwrap_or_else(|errors| panic!("{text}: {errors}")).apps.remove(0)
    }
}

#[test]
fn a_quickstart_is_read() {
    let site = Site::new();
    let run = site.read(QUICKSTART).unwrap();
    let ids: Vec<_> = run.apps.iter().map(|app| (app.app_id.as_str(), app.line)).collect();
    assert_eq!(ids, [("checkout-sdk", 5), ("order-processor", 8)]);
    let [checkout, orders] = run.apps.as_slice() else { panic!("{run:?}") };
    assert_eq!(checkout.app_dir, site.path("run/./checkout/"));
    assert_eq!(checkout.resources, [site.path("run/../components/")]);
    assert_eq!((checkout.config.as_ref(), checkout.app_port), (None, None));
    assert_eq!(checkout.command, ["python3", "app.py"]);
    assert_eq!((orders.app_port, orders.app_protocol), (Some(6002), AppProtocol::Http));
    assert_eq!((orders.host_log, orders.app_log), (LogDestination::File, LogDestination::FileAndConsole));
}

#[test]
fn every_field_is_read() {
    let text = include_str!("data/dapr.yaml");
    let run = MultiApp::parse(text, Path::new("dapr.yaml"), None).unwrap();
    assert_eq!(run.name.as_deref(), Some("shop"));
    let [orders, billing] = run.apps.as_slice() else { panic!("{run:?}") };
    let ports = [orders.app_port, orders.http_port, orders.grpc_port, orders.metrics_port];
    assert_eq!(ports, [Some(8080), Some(3510), Some(50010), None]);
    assert_eq!(orders.app_channel_address.as_deref(), Some("127.0.0.1"));
    assert_eq!(orders.unix_domain_socket.as_deref(), Some(Path::new("/tmp/sockets")));
    assert_eq!(orders.api_listen_addresses, ["127.0.0.1", "::1"]);
    assert_eq!(orders.command, ["python3", "app.py", "1"]);
    // What the app says wins over what all say, although it is false or without limit.
    assert_eq!((orders.env["DEBUG"].as_str(), orders.env["LEVEL"].as_str()), ("true", "2"));
    assert_eq!((orders.app_protocol, orders.max_concurrency), (AppProtocol::Http, None));
    assert_eq!((orders.max_body, orders.read_buffer), (Some(8 << 20), Some(8 << 10)));
    let check = HealthCheck {
        path: "/ready".into(),
        interval: Duration::from_secs(3),
        timeout: Duration::from_millis(10),
        threshold: 1,
    };
    assert_eq!((orders.health_check.as_ref(), orders.api_logging), (Some(&check), true));
    assert_eq!((orders.log_level, orders.host_log), (Some(LogLevel::Debug), LogDestination::Console));
    assert_eq!(orders.app_log, LogDestination::File);
    let unused: Vec<_> = orders.unused.iter().map(|field| field.name.as_str()).collect();
    let expected =
        ["apps[0].logLevel", "apps[0].containerImage", "common.placementHostAddress", "common.logLevel"];
    assert_eq!(unused, expected, "the host logs to the console, as the file has it");

    assert_eq!((billing.env["LEVEL"].as_str(), billing.app_protocol), ("1", AppProtocol::Grpcs));
    assert_eq!((billing.max_concurrency, billing.max_body), (Some(5), Some(16 << 20)));
    assert_eq!((billing.log_level, billing.resources.len()), (Some(LogLevel::Info), 2));
    let usual = HealthCheck {
        path: "/ready".into(),
        interval: Duration::from_secs(5),
        timeout: Duration::from_millis(500),
        threshold: 3,
    };
    assert_eq!(billing.health_check.as_ref(), Some(&usual));
}

#[test]
fn an_app_without_an_id_has_the_name_of_its_folder() {
    let site = Site::new();
    for (dir, id) in
        [("checkout", "checkout"), ("./checkout/", "checkout"), (".", "run"), ("checkout/..", "run")]
    {
        let run = site.read(&format!("version: 1\napps: [{{appDirPath: {dir}}}]")).unwrap();
        assert_eq!(run.apps[0].app_id, id, "{dir}");
    }
    let root = site.read("version: 1\napps: [{appDirPath: /}]").unwrap_err();
    let expected =
        "RUN/dapr.yaml:2:21: apps[0]: `appID` is missing; expected an id, as the folder has no name";
    assert_eq!(root, expected);
}

#[test]
fn the_nearest_resources_and_configuration_win() {
    let site = Site::new();
    let found = |site: &Site, common: &str, app: &str| {
        let app = site.app(common, app);
        let strip = |path: &PathBuf| path.strip_prefix(site.dir.path()).unwrap().display().to_string();
        (app.resources.iter().map(strip).collect::<Vec<_>>().join(" "), app.config.as_ref().map(strip))
    };
    let config = |path: &str| Some(path.to_owned());
    // From the last to the first in the order of precedence: each new file wins over those before it.
    assert_eq!(found(&site, "", ""), (String::new(), None));
    fs::create_dir_all(site.path("home/.dapr/components")).unwrap();
    site.write("home/.dapr/config.yaml");
    assert_eq!(found(&site, "", ""), ("home/.dapr/components".into(), config("home/.dapr/config.yaml")));
    fs::create_dir_all(site.path("install/.dapr/components")).unwrap();
    let install = "runtimePath: ../install";
    let default = config("home/.dapr/config.yaml");
    assert_eq!(found(&site, install, ""), ("run/../install/.dapr/components".into(), None));
    assert_eq!(found(&site, "", "runtimePath: '~'").1, default);
    site.write("run/common.yaml");
    let common = "resourcesPath: ../components, configFilePath: common.yaml";
    assert_eq!(found(&site, common, ""), ("run/../components".into(), config("run/common.yaml")));
    fs::create_dir_all(site.path("run/checkout/.dapr/resources")).unwrap();
    site.write("run/checkout/.dapr/config.yaml");
    let usual = ("run/checkout/.dapr/resources".into(), config("run/checkout/.dapr/config.yaml"));
    assert_eq!(found(&site, common, ""), usual);
    // Paths of an app begin in its own folder.
    fs::create_dir_all(site.path("run/checkout/own")).unwrap();
    site.write("run/checkout/own.yaml");
    let own = "resourcesPaths: [own], resourcesPath: ., configFilePath: own.yaml";
    let expected = ("run/checkout/own run/checkout".into(), config("run/checkout/own.yaml"));
    assert_eq!(found(&site, common, own), expected);
    let texts = found(&site, common, "resourcesPaths: 'own, .dapr/resources'").0;
    assert_eq!(texts, "run/checkout/own run/checkout/.dapr/resources");
    let home = found(&site, common, "resourcesPath: ~/.dapr/components").0;
    assert_eq!(home, "home/.dapr/components");
}

#[test]
fn limits_may_be_absent() {
    let site = Site::new();
    let app = site.app("appMaxConcurrency: 0, maxBodySize: -1, readBufferSize: 4096", "appPort: 0");
    assert_eq!((app.max_concurrency, app.max_body, app.read_buffer), (None, Some(u64::MAX), Some(4096)));
    assert_eq!((app.app_port, app.health_check), (None, None));
    for (protocol, tls, expected) in [
        ("HTTP", false, AppProtocol::Http),
        ("http", true, AppProtocol::Https),
        ("grpc", true, AppProtocol::Grpcs),
        ("h2c", true, AppProtocol::H2c),
    ] {
        let app = site.app("", &format!("appProtocol: {protocol}, appSSL: {tls}"));
        assert_eq!(app.app_protocol, expected, "{protocol} {tls}");
    }
}

#[test]
fn debug_shows_no_values() {
    let app = Site::new().app("env: {TOKEN: hunter2}", "env: {KEY: hunter2}, command: [x, --token=hunter2]");
    let shown = format!("{app:?}");
    assert!(shown.contains("TOKEN") && shown.contains("KEY") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let mistakes: &[Mistake] = &[
        ("version: 1\n", "", "RUN/dapr.yaml:1:1: version: is missing; expected version: 1"),
        (
            "version: 1\n",
            "version: 2\n",
            "RUN/dapr.yaml:1:10: version: must be 1, found `2`; expected version: 1",
        ),
        (
            "version: 1\n",
            "version: \"1\"\n",
            "RUN/dapr.yaml:1:10: version: must be 1, found a string; expected version: 1",
        ),
        (
            "version: 1\n",
            "verison: 1\n",
            "RUN/dapr.yaml:1:1: version: is missing; expected version: 1\nRUN/dapr.yaml:1:1: unknown field `verison`; expected one of version, name, common, apps; did you mean `version`?",
        ),
        (
            "common:",
            "commons:",
            "RUN/dapr.yaml:2:1: unknown field `commons`; expected one of version, name, common, apps; did you mean `common`?",
        ),
        (
            "  resourcesPath:",
            "  resourcePath:",
            "RUN/dapr.yaml:3:3: common: unknown field `resourcePath`; expected one of resourcesPaths, resourcesPath, maxBodySize, daprMaxRequestSize, configFilePath, runtimePath, env, appProtocol, appSSL, apiListenAddresses, appMaxConcurrency, readBufferSize, enableAppHealthCheck, appHealthCheckPath, appHealthProbeInterval, appHealthProbeTimeout, appHealthThreshold, enableApiLogging, logLevel, daprdLogDestination, appLogDestination, placementHostAddress, schedulerHostAddress, enableProfiling; did you mean `resourcesPath`?",
        ),
        (
            "../components/",
            "../nowhere/",
            "RUN/dapr.yaml:3:18: common.resourcesPath: there is no folder `../nowhere/`; expected a path from RUN",
        ),
        (
            "../components/",
            "dapr.yaml",
            "RUN/dapr.yaml:3:18: common.resourcesPath: there is no folder `dapr.yaml`; expected a path from RUN",
        ),
        (
            "  resourcesPath:",
            "  appPort: 1\n  resourcesPath:",
            "RUN/dapr.yaml:3:3: common: unknown field `appPort`; expected one of resourcesPaths, resourcesPath, maxBodySize, daprMaxRequestSize, configFilePath, runtimePath, env, appProtocol, appSSL, apiListenAddresses, appMaxConcurrency, readBufferSize, enableAppHealthCheck, appHealthCheckPath, appHealthProbeInterval, appHealthProbeTimeout, appHealthThreshold, enableApiLogging, logLevel, daprdLogDestination, appLogDestination, placementHostAddress, schedulerHostAddress, enableProfiling",
        ),
        (
            "  resourcesPath:",
            "  env: [a]\n  resourcesPath:",
            "RUN/dapr.yaml:3:8: common.env: must be a map, found a list",
        ),
        (
            "  resourcesPath:",
            "  env: {A=B: c}\n  resourcesPath:",
            "RUN/dapr.yaml:3:9: common.env: `A=B` cannot be the name of an environment variable; expected a name without `=` and NUL",
        ),
        (
            "  resourcesPath:",
            "  env: {A: [hunter2]}\n  resourcesPath:",
            "RUN/dapr.yaml:3:12: common.env.A: must be a single value, found a list",
        ),
        (
            "  resourcesPath:",
            "  configFilePath: c.yaml\n  resourcesPath:",
            "RUN/dapr.yaml:3:19: common.configFilePath: there is no file `c.yaml`; expected a path from RUN",
        ),
        (
            "  resourcesPath:",
            "  appProtocol: htp\n  resourcesPath:",
            "RUN/dapr.yaml:3:16: common.appProtocol: `htp` is unknown; expected http or https or grpc or grpcs or h2c; did you mean `http`?",
        ),
        (
            "  resourcesPath:",
            "  logLevel: loud\n  resourcesPath:",
            "RUN/dapr.yaml:3:13: common.logLevel: `loud` is unknown; expected debug or info or warn or error or fatal",
        ),
        (
            "  resourcesPath:",
            "  maxBodySize: 4 potatoes\n  resourcesPath:",
            "RUN/dapr.yaml:3:16: common.maxBodySize: `4 potatoes` is not a quantity; expected bytes as a number, or a quantity such as \"4Mi\", \"512Ki\", \"10M\"",
        ),
        (
            "  resourcesPath:",
            "  appMaxConcurrency: -2\n  resourcesPath:",
            "RUN/dapr.yaml:3:22: common.appMaxConcurrency: `-2` is out of range; expected -1 to 4294967295",
        ),
        (
            "  resourcesPath:",
            "  appLogDestination: files\n  resourcesPath:",
            "RUN/dapr.yaml:3:22: common.appLogDestination: `files` is unknown; expected file or console or fileAndConsole; did you mean `file`?",
        ),
        (
            "  resourcesPath:",
            "  enableApiLogging: 1\n  resourcesPath:",
            "RUN/dapr.yaml:3:21: common.enableApiLogging: must be true or false, found an integer",
        ),
        (
            "    appDirPath: ./checkout/\n",
            "",
            "RUN/dapr.yaml:5:5: apps[0]: `appDirPath` is missing; expected the folder that the app runs in, such as ./orders",
        ),
        (
            "./checkout/",
            "./chekcout/",
            "RUN/dapr.yaml:6:17: apps[0].appDirPath: there is no folder `./chekcout/`; expected a path from RUN",
        ),
        (
            "./checkout/",
            "./chekcout/\n    configFilePath: x\n    resourcesPath: y",
            "RUN/dapr.yaml:6:17: apps[0].appDirPath: there is no folder `./chekcout/`; expected a path from RUN",
        ),
        (
            "./checkout/",
            "~/checkout",
            "RUN/dapr.yaml:6:17: apps[0].appDirPath: there is no folder `~/checkout`; expected a path from HOME",
        ),
        (
            "    appDirPath: ./checkout/",
            "    appDirPath: ./checkout/\n    resourcesPaths: [., x]",
            "RUN/dapr.yaml:7:25: apps[0].resourcesPaths[1]: there is no folder `x`; expected a path from RUN/./checkout/",
        ),
        (
            "appID: checkout-sdk",
            "appID: check out",
            "RUN/dapr.yaml:5:12: apps[0].appID: `check out` cannot be an app-id; expected 1 to 63 letters, digits, `-`, `_` or `.`, with a letter or digit at both ends",
        ),
        (
            "appID: checkout-sdk",
            "appID: order-processor",
            "RUN/dapr.yaml:8:12: apps[1].appID: the app-id `order-processor` is already in line 5; expected every app to have its own: set `appID`",
        ),
        (
            "  - appID: checkout-sdk\n    appDirPath: ./checkout/",
            "  - appDirPath: my app",
            "RUN/dapr.yaml:5:17: apps[0].appID: `my app` cannot be an app-id; expected 1 to 63 letters, digits, `-`, `_` or `.`, with a letter or digit at both ends",
        ),
        (
            "appID: checkout-sdk",
            "appId: checkout-sdk",
            "RUN/dapr.yaml:5:5: apps[0]: unknown field `appId`; expected one of appDirPath, appID, resourcesPaths, resourcesPath, maxBodySize, daprMaxRequestSize, configFilePath, runtimePath, env, appProtocol, appSSL, apiListenAddresses, appMaxConcurrency, readBufferSize, enableAppHealthCheck, appHealthCheckPath, appHealthProbeInterval, appHealthProbeTimeout, appHealthThreshold, enableApiLogging, logLevel, daprdLogDestination, appLogDestination, placementHostAddress, schedulerHostAddress, enableProfiling, appPort, daprHTTPPort, daprGRPCPort, daprInternalGRPCPort, metricsPort, appChannelAddress, unixDomainSocket, command, profilePort, containerImage, containerImagePullPolicy, createService; did you mean `appID`?",
        ),
        (
            "    command: [\"python3\", \"app.py\"]",
            "    command: python3 app.py",
            "RUN/dapr.yaml:7:14: apps[0].command: must be a list: the program and its arguments, found a string",
        ),
        (
            "    command: [\"python3\", \"app.py\"]",
            "    command: [\"\", {}]",
            "RUN/dapr.yaml:7:15: apps[0].command[0]: is empty or has a NUL character; expected a program or an argument\nRUN/dapr.yaml:7:19: apps[0].command[1]: must be a single value, found a map",
        ),
        (
            "    appPort: 6002",
            "    appPort: 66000",
            "RUN/dapr.yaml:10:14: apps[1].appPort: `66000` is out of range; expected -1 to 65535",
        ),
        (
            "    appPort: 6002",
            "    appport: 6002",
            "RUN/dapr.yaml:10:5: apps[1]: unknown field `appport`; expected one of appDirPath, appID, resourcesPaths, resourcesPath, maxBodySize, daprMaxRequestSize, configFilePath, runtimePath, env, appProtocol, appSSL, apiListenAddresses, appMaxConcurrency, readBufferSize, enableAppHealthCheck, appHealthCheckPath, appHealthProbeInterval, appHealthProbeTimeout, appHealthThreshold, enableApiLogging, logLevel, daprdLogDestination, appLogDestination, placementHostAddress, schedulerHostAddress, enableProfiling, appPort, daprHTTPPort, daprGRPCPort, daprInternalGRPCPort, metricsPort, appChannelAddress, unixDomainSocket, command, profilePort, containerImage, containerImagePullPolicy, createService; did you mean `appPort`?",
        ),
    ];
    let site = Site::new();
    site.write("run/dapr.yaml");
    check(QUICKSTART, mistakes, |text| site.read(text));
}

#[test]
fn a_file_without_apps_says_so() {
    let site = Site::new();
    let empty = "RUN/dapr.yaml: the file is empty; expected version: 1 and a list of apps";
    let none = "RUN/dapr.yaml:1:1: apps: there is no app; expected apps: and a list of {appDirPath, command}";
    let cases = [
        ("", empty),
        ("version: 1", none),
        ("version: 1\napps:", none),
        ("version: 1\napps: []", none),
        (
            "version: 1\napps: {}",
            "RUN/dapr.yaml:2:7: apps: must be a list of {appDirPath, appID, command}, found a map",
        ),
        (
            "version: 1\napps: [{appDirPath: .}]\n---\nversion: 1",
            "RUN/dapr.yaml:4:1: the file has a second document; the first is in line 1; expected one document: put \
             the rest into other files",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(site.read(text).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn a_file_is_found_in_its_folder() {
    let site = Site::new();
    let file = site.path("run/dapr.yaml");
    fs::write(&file, QUICKSTART).unwrap();
    let run = MultiApp::load(&site.path("run"), None).unwrap();
    assert_eq!((run.file.as_path(), run.apps.len()), (file.as_path(), 2));
    assert_eq!(MultiApp::load(&file, None).unwrap(), run);
    let missing = MultiApp::load(&site.path("home"), None).unwrap_err().to_string();
    assert!(missing.contains("home/dapr.yaml: cannot be read"), "{missing}");
}

#[test]
fn what_all_apps_share_is_bounded() {
    let site = Site::new();
    let env = format!("    A: {}\n", "x".repeat(1 << 20));
    let apps: String = (0..100).map(|number| format!("- {{appDirPath: ., appID: a{number}}}\n")).collect();
    let told = site.read(&format!("version: 1\ncommon:\n  env:\n{env}apps:\n{apps}")).unwrap_err();
    let expected = "RUN/dapr.yaml:3:3: common: would add more than 64 MiB to the apps; expected a few settings that \
                    the apps share";
    assert_eq!(told, expected);
}
