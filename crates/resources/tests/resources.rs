//! Dapr components, and folders of all kinds of resources: what they mean, and what each mistake in them is answered with.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use dhow_resources::component::{Component, MetadataValue};
use dhow_resources::load::{load_dir, load_dirs, parse};
use std::path::Path;
use std::time::Duration;

const RESOURCES: &str = include_str!("data/resources.yaml");

fn one(text: &str) -> Component {
    let resources = parse(text, Path::new("c.yaml")).unwrap_or_else(|errors| panic!("{text}: {errors}"));
    resources.components.into_iter().next().unwrap()
}

fn with_metadata(metadata: &str) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: c\nspec:\n  type: state.x\n{metadata}"
    )
}

fn plain<'a>(component: &'a Component, name: &str) -> &'a str {
    match component.metadata_value(name) {
        Some(MetadataValue::Plain(text)) => text,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn every_field_is_read() {
    let resources = parse(RESOURCES, Path::new("r.yaml")).unwrap();
    let [component] = resources.components.as_slice() else { panic!("{:?}", resources.components) };
    assert_eq!((component.name.as_str(), component.namespace.as_deref()), ("statestore", Some("shop")));
    assert_eq!((component.component_type.as_str(), component.version.as_str()), ("state.sqlite", "v1"));
    assert_eq!((component.ignore_errors, component.init_timeout), (true, Some(Duration::from_secs(90))));
    assert_eq!((component.auth_secret_store.as_deref(), component.line), (Some("vault"), 2));
    assert!(component.is_in_scope("front") && !component.is_in_scope("other"));
    let values = [
        ("connectionstring", "data.db"),
        ("ACTORSTATESTORE", "true"),
        ("busyTimeout", "5"),
        ("ratio", "1.5"),
        ("quoted", "1.50"),
        ("pem", "line one\nline two\n"),
    ];
    for (name, value) in values {
        assert_eq!(plain(component, name), value, "{name}");
    }
    let secret = |name: &str, key: &str| MetadataValue::SecretRef { name: name.into(), key: key.into() };
    assert_eq!(component.metadata_value("redisPassword"), Some(&secret("redis-secret", "password")));
    assert_eq!(component.metadata_value("other"), Some(&secret("token", "token")));
    assert_eq!(component.metadata_value("user"), Some(&MetadataValue::EnvRef("REDIS_USER".into())));

    let [later] = resources.later.as_slice() else { panic!("{:?}", resources.later) };
    assert_eq!((later.kind.as_str(), later.name.as_str(), later.line), ("MCPServer", "tools", 44));
    let ignored: Vec<_> = resources.ignored.iter().map(|i| (i.kind.as_str(), i.nearest, i.line)).collect();
    assert_eq!(ignored, [("ConfigMap", None, 49), ("Componnet", Some("Component"), 53)]);
}

#[test]
fn scalars_become_the_text_that_dapr_shows() {
    let cases = [
        ("true", "true"),
        ("yes", "true"),
        ("No", "false"),
        ("5", "5"),
        ("+5", "5"),
        ("-5", "-5"),
        ("010", "8"),
        ("0x1F", "31"),
        ("1_000", "1000"),
        ("08", "8"),
        ("1.50", "1.5"),
        ("1.0", "1"),
        ("1e3", "1000"),
        ("1e21", "1e+21"),
        ("1e-7", "1e-7"),
        ("18446744073709551615", "18446744073709551615"),
        ("100000000000000000000", "100000000000000000000"),
        ("\"010\"", "010"),
        ("'yes'", "yes"),
        ("!!str 010", "010"),
        ("1.2.3", "1.2.3"),
        ("127.0.0.1:6379", "127.0.0.1:6379"),
        ("5s", "5s"),
        ("2026-01-02", "2026-01-02"),
        ("-", "-"),
        (".", "."),
        ("nan", "nan"),
        ("~", ""),
        ("", ""),
        ("host=localhost user=x", "host=localhost user=x"),
    ];
    for (written, shown) in cases {
        if written == "-" {
            // A lone dash opens a list; quoted it is text.
            assert_eq!(plain(&one(&with_metadata("  metadata: [{name: k, value: '-'}]")), "k"), shown);
            continue;
        }
        let component = one(&with_metadata(&format!("  metadata:\n  - name: k\n    value: {written}\n")));
        assert_eq!(plain(&component, "k"), shown, "{written}");
    }
}

#[test]
fn templates_are_replaced_once() {
    let component = parse(RESOURCES, Path::new("r.yaml")).unwrap().components.remove(0);
    let expanded = component.expand("{uuid}", "ns");
    let text = plain(&expanded, "consumerID");
    let uuid =
        text.strip_prefix("{uuid}-ns.{uuid}-{uuid}-").and_then(|rest| rest.strip_suffix("-{other}")).unwrap();
    let parts: Vec<usize> = uuid.split('-').map(str::len).collect();
    assert_eq!(parts, [8, 4, 4, 4, 12], "{uuid}");
    assert_eq!(&uuid[14..15], "4", "{uuid}");
    assert!("89ab".contains(&uuid[19..20]), "{uuid}");
    assert_ne!(
        plain(&component.expand("a", "ns"), "consumerID"),
        plain(&component.expand("a", "ns"), "consumerID")
    );
}

#[test]
fn debug_shows_no_values() {
    let shown = format!("{:?}", one(&with_metadata("  metadata: [{name: password, value: hunter2}]")));
    assert!(shown.contains("password") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let good = with_metadata("  metadata:\n  - name: k\n    value: v\n");
    // What to replace in a good component, by what, and what the error says.
    let cases: &[(&str, &str, &str, &str)] = &[
        ("spec:", "sepc:", "5:1: unknown field `sepc`", "did you mean `spec`?"),
        ("metadata:\n  name", "metadta:\n  name", "3:1: unknown field `metadta`", "did you mean `metadata`?"),
        ("  type:", "  typ:", "6:3: spec: `type` is missing", "did you mean `type`?"),
        (
            "  metadata:\n  -",
            "  metdata:\n  -",
            "7:3: spec: unknown field `metdata`",
            "did you mean `metadata`?",
        ),
        (
            "  - name: k\n    value: v",
            "    k: v",
            "8:5: spec.metadata: must be a list of {name, value}",
            "found a map",
        ),
        (
            "    value: v",
            "    vlaue: v",
            "9:5: spec.metadata[0]: unknown field `vlaue`",
            "did you mean `value`?",
        ),
        (
            "    value: v",
            "    value: [v]",
            "9:12: spec.metadata[0].value: must be a single value",
            "found a list",
        ),
        ("  - name: k\n", "  - nam: k\n", "8:5: spec.metadata[0]", "`name` is missing"),
        ("    value: v", "    value: v\n    envRef: X", "8:5: spec.metadata[0]: has more than one value", ""),
        ("    value: v", "    envRef: DAPR_API_TOKEN", "9:13: spec.metadata[0].envRef", "cannot be used"),
        ("    value: v", "    envRef: 'A B'", "9:13: spec.metadata[0].envRef", "cannot be used"),
        (
            "    value: v",
            "    secretKeyRef: x",
            "9:19: spec.metadata[0].secretKeyRef: must be a map",
            "found a string",
        ),
        ("    value: v", "    secretKeyRef: {nme: x}", "9:", "did you mean `name`?"),
        ("    value: v", "    value: v\n    value: w", "10:5: the field `value` stands here twice", ""),
        ("  name: c\n", "  name:\n", "4:3: metadata: `name` is missing", ""),
        ("  name: c\n", "  nmae: c\n", "4:3: metadata", "did you mean `name`?"),
        ("  name: c\n", "  - name\n", "4:3: metadata: must be a map", "found a list"),
        ("v1alpha1", "v1", "1:13: apiVersion: `dapr.io/v1` is not a version", "dapr.io/v1alpha1"),
        ("apiVersion: dapr.io/v1alpha1\n", "", "1:1: apiVersion: is missing", "dapr.io/v1alpha1"),
        ("kind:", "knid:", "2:1: unknown field `knid`; did you mean `kind`?", "Component"),
        (
            "  type:",
            "  ignoreErrors: 1\n  type:",
            "6:17: spec.ignoreErrors: must be true or false",
            "an integer",
        ),
        ("  type:", "  initTimeout: 5\n  type:", "6:16: spec.initTimeout: `5` is not a duration", "\"30s\""),
        ("spec:", "scopes: front\nspec:", "5:9: scopes: must be a list of app-ids, found a string", ""),
        ("spec:", "auth: {secretstore: x}\nspec:", "5:8: auth: unknown field", "did you mean `secretStore`?"),
        ("spec:", "spec: [", "", ""),
        ("spec:", "spec: \u{1}", "5:7: a control character", ""),
        ("spec:", "spec: *nowhere", "5:", "anchor"),
        ("spec:", "[a]: 1\nspec:", "5:1: a key must be a single value", ""),
    ];
    for (old, new, begin, part) in cases {
        assert!(good.contains(old), "{old}");
        let errors = parse(&good.replacen(old, new, 1), Path::new("c.yaml")).expect_err(new).to_string();
        assert!(errors.starts_with(&format!("c.yaml:{begin}")), "{new}: {errors}");
        assert!(errors.contains(part), "{new}: {errors}");
    }
}

#[test]
fn anchors_aliases_and_merge_keys_work() {
    let text = with_metadata(
        "  metadata:\n  - &base\n    name: a\n    value: &v shared\n  - <<: *base\n    name: b\n  - {name: c, value: *v}\n",
    );
    let component = one(&text);
    for name in ["a", "b", "c"] {
        assert_eq!(plain(&component, name), "shared", "{name}");
    }
}

#[test]
fn hostile_files_are_refused() {
    let lists = |count: usize| format!("{}{}", "[".repeat(count), "]".repeat(count));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 9].join(", ")));
    }
    let long_copies = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 1000].join(", "));
    let cases = [
        ("a: &a 1\n---\nb: *a\n".to_owned(), "an anchor of another document"),
        ("a: &a [*a]\n".to_owned(), "a value that contains it"),
        (lists(100), "nested deeper"),
        (lists(100_000), ""),
        ("- ".repeat(100_000), ""),
        ("{a: ".repeat(5_000), ""),
        (bomb, "copy more than"),
        (long_copies, "copy more than"),
        ("a: &a [*a]".to_owned(), ""),
        ("- x\n".repeat(300_000), "more than 200000 values"),
        ("#".repeat(5 << 20), "larger than 4 MiB"),
        ("- just a list".to_owned(), "must be a resource"),
        ("text".to_owned(), "must be a resource"),
    ];
    for (text, part) in cases {
        let error = parse(&text, Path::new("h.yaml")).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        assert!(error.len() < 1000, "{error}");
    }
}

#[test]
fn a_folder_is_read_at_its_top_level_only() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let named = |name: &str| with_metadata("").replace("name: c", &format!("name: {name}"));
    write("b.yml", &format!("{}---\n{}", named("one"), named("two")));
    write("a.yaml", &format!("\u{feff}{}", named("three").replace('\n', "\r\n")));
    write("notes.txt", "not: [yaml");
    write("empty.yaml", "# nothing\n");
    std::fs::create_dir(dir.path().join("sub.yaml")).unwrap();
    std::fs::write(dir.path().join("sub.yaml/c.yaml"), "not: [yaml").unwrap();
    let resources = load_dir(dir.path()).unwrap();
    let names: Vec<_> = resources.components.iter().map(|component| component.name.as_str()).collect();
    assert_eq!(names, ["three", "one", "two"]);

    write("c.yaml", &format!("# copy\n{}", named("two")));
    write("d.yaml", "kind: Component\n");
    let errors = load_dir(dir.path()).unwrap_err();
    let shown = errors.to_string();
    assert!(shown.contains("c.yaml:2:1: metadata.name: a component named `two` is already in"), "{shown}");
    assert!(shown.contains("b.yml:8"), "{shown}");
    assert!(shown.contains("d.yaml:1:1"), "{shown}");
    assert!(load_dirs(&[dir.path().join("missing")]).unwrap_err().to_string().contains("cannot be read"));
}

#[test]
fn names_differ_within_a_kind_and_not_between_kinds() {
    let head = |kind: &str, spec: &str| {
        format!("apiVersion: dapr.io/v1alpha1\nkind: {kind}\nmetadata: {{name: same}}\nspec: {spec}\n---\n")
    };
    let kinds = [
        ("a component", head("Component", "{type: state.x}")),
        ("a subscription", head("Subscription", "{pubsubname: p, topic: t, route: /}")),
        ("a configuration", head("Configuration", "{}")),
        ("an HTTP endpoint", head("HTTPEndpoint", "{baseUrl: http://x}")),
        ("a resiliency resource", head("Resiliency", "{}")),
    ];
    let all: String = kinds.iter().map(|(_, text)| text.as_str()).collect();
    let resources = parse(&all, Path::new("r.yaml")).unwrap();
    let counts = [
        resources.components.len(),
        resources.subscriptions.len(),
        resources.configurations.len(),
        resources.http_endpoints.len(),
        resources.resiliencies.len(),
    ];
    assert_eq!((counts, resources.later.len(), resources.ignored.len()), ([1; 5], 0, 0));
    for (kind, text) in kinds {
        let noun = kind.split_once(' ').unwrap().1;
        let told = parse(&format!("{text}{text}"), Path::new("r.yaml")).unwrap_err().to_string();
        let expected = format!(
            "r.yaml:6:1: metadata.name: {kind} named `same` is already in r.yaml:1; expected every {noun} to have its \
             own name: rename or remove one"
        );
        assert_eq!(told, expected);
    }
}

#[test]
fn kinds_are_told_apart_by_their_api_version() {
    // What stands in a document, how many of Dapr it makes, and what is said of it otherwise.
    let cases = [
        ("apiVersion: apps.example/v1\nkind: Configuration", Ok((0, Some(("Configuration", None))))),
        (
            "apiVersion: dapr.io/v1alpha1\nkind: Configuraton",
            Ok((0, Some(("Configuraton", Some("Configuration"))))),
        ),
        ("apiVersion: dapr.io/v1alpha1\nkind: Resilience", Ok((0, Some(("Resilience", Some("Resiliency")))))),
        ("apiVersion: dapr.io/v1alpha1\nkind: Configuration", Ok((1, None))),
        (
            "kind: Configuration",
            Err("r.yaml:1:1: apiVersion: is missing; expected apiVersion: dapr.io/v1alpha1"),
        ),
    ];
    for (text, expected) in cases {
        let found = parse(text, Path::new("r.yaml")).map_err(|errors| errors.to_string()).map(|resources| {
            let ignored = resources.ignored.first().map(|other| (other.kind.clone(), other.nearest));
            (resources.configurations.len(), ignored)
        });
        let expected = expected
            .map(|(count, ignored)| (count, ignored.map(|(kind, nearest)| (kind.to_owned(), nearest))))
            .map_err(str::to_owned);
        assert_eq!(found, expected, "{text}");
    }
}
