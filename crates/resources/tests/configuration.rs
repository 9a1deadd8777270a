//! Configurations: what they mean. What mistakes in them are answered with is in `configuration_mistakes.rs`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use dhow_resources::component::MetadataValue;
use dhow_resources::configuration::access::{Action, ApiRule, Protocol};
use dhow_resources::configuration::telemetry::{HttpMetrics, Metrics, OtelProtocol};
use dhow_resources::configuration::{self, Configuration};
use std::path::Path;
use std::time::Duration;

/// As Dapr's command line makes it for a new installation.
const QUICKSTART: &str = "\
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: daprConfig
spec:
  tracing:
    samplingRate: \"1\"
    zipkin:
      endpointAddress: http://localhost:9411/api/v2/spans
";

fn read(text: &str) -> Result<Configuration, String> {
    configuration::parse(text, Path::new("c.yaml")).map_err(|errors| errors.to_string())
}

fn with_spec(spec: &str) -> Configuration {
    let text = format!("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nspec:\n{spec}\n");
    read(&text).unwrap_or_else(|errors| panic!("{text}: {errors}"))
}

#[test]
fn a_quickstart_is_read() {
    let configuration = read(QUICKSTART).unwrap();
    assert_eq!((configuration.name.as_deref(), configuration.line), (Some("daprConfig"), 1));
    assert_eq!(configuration.tracing.sampling_rate, Some(1.0));
    assert_eq!(configuration.tracing.zipkin.as_deref(), Some("http://localhost:9411/api/v2/spans"));
    assert_eq!((configuration.tracing.otel, configuration.access_control), (None, None));
    assert_eq!((configuration.metrics, configuration.unused), (Metrics::default(), Vec::new()));
}

#[test]
fn nothing_is_needed() {
    for spec in ["", "spec:", "spec: {}", "metadata:\nspec: {tracing: , metric: {}, api: {allowed: }}"] {
        let text = format!("apiVersion: dapr.io/v1alpha1\nkind: Configuration\n{spec}\n---\n");
        let expected = Configuration { file: "c.yaml".into(), line: 1, ..Configuration::default() };
        assert_eq!(read(&text), Ok(expected), "{spec}");
    }
}

#[test]
fn every_field_is_read() {
    let all = include_str!("data/kinds.yaml").split("\n---\n");
    let configuration =
        read(all.into_iter().find(|text| text.contains("kind: Configuration")).unwrap()).unwrap();

    let tracing = &configuration.tracing;
    assert_eq!((tracing.sampling_rate, tracing.stdout), (Some(0.25), true));
    let otel = tracing.otel.as_ref().unwrap();
    assert_eq!((otel.protocol, otel.endpoint.as_str()), (OtelProtocol::Grpc, "localhost:4317"));
    assert_eq!((otel.is_secure, otel.timeout), (false, Duration::from_millis(2500)));
    let headers: Vec<_> = otel.headers.iter().map(|header| (header.name.as_str(), &header.value)).collect();
    let plain = |text: &str| MetadataValue::Plain(text.to_owned());
    assert_eq!(headers, [("api-key", &plain("a b")), ("x", &plain("y"))]);

    // `metrics` wins, and `metric` has the rest.
    let metrics = &configuration.metrics;
    assert_eq!((metrics.enabled, metrics.record_error_codes), (Some(false), Some(true)));
    let http = HttpMetrics {
        increased_cardinality: Some(false),
        path_matching: vec!["/orders/{id}".into()],
        exclude_verbs: Some(true),
    };
    assert_eq!(
        (metrics.http.as_ref(), metrics.latency_buckets.as_deref()),
        (Some(&http), Some(&[1, 10, 100][..]))
    );
    assert_eq!(metrics.rules[0].labels[0].regex["orders/"], "orders/.+");
    let logging = configuration.api_logging;
    assert_eq!(
        (logging.enabled, logging.obfuscate_urls, logging.omit_health_checks),
        (Some(true), true, true)
    );

    let access = configuration.access_control.as_ref().unwrap();
    assert_eq!((access.default_action, access.trust_domain.as_str()), (Action::Deny, "public"));
    let policy = &access.policies[0];
    assert_eq!((policy.app_id.as_str(), policy.default_action), ("checkout", Some(Action::Allow)));
    let operation = &policy.operations[0];
    assert_eq!((operation.name.as_str(), operation.action), ("/orders/*", Action::Allow));
    assert_eq!(operation.http_verbs, ["POST", "*"]);
    let rule = |name: &str, protocol| ApiRule { name: name.into(), version: "v1.0".into(), protocol };
    assert_eq!(configuration.allowed_apis, [rule("state", Protocol::Http)]);
    assert_eq!(configuration.denied_apis, [rule("invoke", Protocol::Grpc)]);
    assert_eq!(configuration.denied_components, ["bindings.smtp", "state.redis/v1"]);

    let resolution = configuration.name_resolution.as_ref().unwrap();
    assert_eq!((resolution.component.as_str(), resolution.version.as_str()), ("consul", "v1"));
    let settings: Vec<_> = resolution.configuration.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expected = [
        ("client.address", "127.0.0.1:8500"),
        ("selfRegister", "true"),
        ("tags[0]", "dapr"),
        ("tags[1]", "1"),
    ];
    assert_eq!(settings, expected);
    assert_eq!(
        (configuration.features[0].name.as_str(), configuration.features[0].enabled),
        ("HotReload", false)
    );
    assert_eq!(configuration.http_pipeline[0].version, "v2");
    assert_eq!(configuration.app_http_pipeline[0].handler_type, "middleware.http.bearer");
    let unused: Vec<_> = configuration.unused.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(unused, ["spec.httpPipeline.handlers[0].selector", "spec.mtls", "spec.wasm", "spec.workflow"]);
}

#[test]
fn secrets_are_scoped() {
    let cases = [
        ("{storeName: s}", "x", true),
        ("{storeName: s, defaultAccess: deny}", "x", false),
        ("{storeName: s, deniedSecrets: [x]}", "x", false),
        ("{storeName: s, deniedSecrets: [y]}", "x", true),
        ("{storeName: s, allowedSecrets: [y]}", "x", false),
        ("{storeName: s, defaultAccess: deny, allowedSecrets: [x]}", "x", true),
        ("{storeName: s, defaultAccess: allow, allowedSecrets: [x], deniedSecrets: [x]}", "x", true),
    ];
    for (scope, secret, allowed) in cases {
        let configuration = with_spec(&format!("  secrets: {{scopes: [{scope}]}}"));
        assert_eq!(configuration.secret_scopes[0].allows(secret), allowed, "{scope}");
    }
}

#[test]
fn access_control_denies_when_in_doubt() {
    let policy = "{appId: a, trustDomain: t, namespace: n}";
    let cases = [
        ("{}".to_owned(), None),
        ("{policies: []}".to_owned(), None),
        ("{trustDomain: t}".to_owned(), Some(Action::Deny)),
        ("{trustDomain: t, policies: []}".to_owned(), Some(Action::Allow)),
        (format!("{{policies: [{policy}]}}"), Some(Action::Deny)),
        (format!("{{defaultAction: Allow, policies: [{policy}]}}"), Some(Action::Allow)),
    ];
    for (text, expected) in cases {
        let access = with_spec(&format!("  accessControl: {text}")).access_control;
        assert_eq!(access.map(|access| access.default_action), expected, "{text}");
    }
}

#[test]
fn sampling_rates_are_numbers_or_texts() {
    for (written, rate) in [("1", 1.0), ("0", 0.0), ("0.1", 0.1), ("\"0.001\"", 0.001), ("1e-3", 0.001)] {
        let tracing = with_spec(&format!("  tracing: {{samplingRate: {written}}}")).tracing;
        assert_eq!(tracing.sampling_rate, Some(rate), "{written}");
    }
    assert_eq!(with_spec("  tracing: {samplingRate: ''}").tracing.sampling_rate, None);
}

#[test]
fn headers_of_traces_have_two_forms() {
    let otel = |headers: &str| {
        let text = format!("  tracing: {{otel: {{protocol: http, endpointAddress: x, headers: {headers}}}}}");
        with_spec(&text).tracing.otel.unwrap()
    };
    let list = otel("[{name: a, value: b}, {name: c, secretKeyRef: {name: d}}]");
    assert_eq!(list.headers[0].value, MetadataValue::Plain("b".into()));
    assert_eq!(list.headers[1].value, MetadataValue::SecretRef { name: "d".into(), key: "d".into() });
    assert_eq!((list.is_secure, list.timeout), (true, Duration::from_secs(10)));
    let text = otel("'a=b=c, d=%C3%A9,'");
    assert_eq!(text.headers[0].value, MetadataValue::Plain("b=c".into()));
    assert_eq!(text.headers[1].value, MetadataValue::Plain("é".into()));
}

#[test]
fn debug_shows_no_values() {
    let configuration = with_spec(
        "  tracing: {otel: {protocol: http, endpointAddress: x, headers: 'key=hunter2'}}\n  \
         nameResolution: {component: sqlite, configuration: {connectionString: hunter2}}",
    );
    let shown = format!("{configuration:?}");
    assert!(shown.contains("connectionString") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_file_holds_one_configuration() {
    let cases = [
        (String::new(), "c.yaml: the file is empty; expected a document with kind: Configuration"),
        ("---\n---\n".to_owned(), "c.yaml: the file is empty; expected a document with kind: Configuration"),
        ("- x".to_owned(), "c.yaml:1:1: must be a map, found a list"),
        (
            format!("{QUICKSTART}---\n{QUICKSTART}"),
            "c.yaml:11:1: the file has a second document; the first is in line 1; expected one document: put the \
             rest into other files",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(read(&text).unwrap_err(), expected, "{text}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, QUICKSTART).unwrap();
    assert_eq!(configuration::load(&file).unwrap().file, file);
    assert!(configuration::load(dir.path()).unwrap_err().to_string().contains("is not a file"));
    assert!(configuration::load(&dir.path().join("x")).unwrap_err().to_string().contains("cannot be read"));
}

#[test]
fn a_hostile_name_resolution_is_refused() {
    let long = "k".repeat(10_000);
    let many: String = (0..1000).map(|number| format!("x{number}: 1, ")).collect();
    let text = format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nspec:\n  nameResolution:\n    component: x\n    \
         configuration: {{{long}: {{{many}}}}}\n"
    );
    let told = read(&text).unwrap_err();
    let expected = "c.yaml:6:20: spec.nameResolution.configuration: is larger than 64 KiB; expected the settings of \
                    one component";
    assert_eq!(told, expected);
}
