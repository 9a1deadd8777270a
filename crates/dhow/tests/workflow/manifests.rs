//! `deploy/argo`: what users apply to their clusters.

use dhow_argo::manifest::Manifest;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/argo")
}

fn documents(file: &Path) -> Vec<Value> {
    Manifest::parse(&std::fs::read_to_string(file).unwrap(), file).unwrap().values()
}

fn document(name: &str) -> Value {
    documents(&folder().join(name)).remove(0)
}

/// YAML as Argo's `executor-plugin build` writes a container: sorted keys, block style, quotes only around what would
/// be read as something else.
fn yaml(value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            for (index, (key, value)) in sorted.into_iter().enumerate() {
                // The first key of a list's element stands behind its dash.
                if index > 0 || !out.ends_with("- ") {
                    out.push_str(&pad);
                }
                match value {
                    Value::Object(_) => {
                        out.push_str(&format!("{key}:\n"));
                        yaml(value, indent + 2, out);
                    }
                    Value::Array(_) => {
                        out.push_str(&format!("{key}:\n"));
                        yaml(value, indent, out);
                    }
                    scalar => {
                        out.push_str(&format!("{key}: "));
                        yaml(scalar, 0, out);
                    }
                }
            }
        }
        Value::Array(list) => {
            for element in list {
                out.push_str(&format!("{pad}- "));
                yaml(element, indent + 2, out);
            }
        }
        Value::String(text) => {
            let is_other =
                text.parse::<f64>().is_ok() || ["true", "false", "null", ""].contains(&text.as_str());
            out.push_str(&if is_other { format!("{text:?}\n") } else { format!("{text}\n") });
        }
        scalar => out.push_str(&format!("{scalar}\n")),
    }
}

#[test]
fn the_plugins_configmap_is_what_argo_makes_of_it() {
    let plugin = document("plugin.yaml");
    let map = document("wasm-executor-plugin-configmap.yaml");
    let name = plugin["metadata"]["name"].as_str().unwrap();
    let sidecar = &plugin["spec"]["sidecar"];
    let container = &sidecar["container"];
    // What Argo insists on.
    for field in ["ports", "securityContext"] {
        assert!(!container[field].is_null(), "{field}");
    }
    for field in ["requests", "limits"] {
        assert!(container["resources"][field].is_object(), "{field}");
    }
    let mut text = String::new();
    yaml(container, 0, &mut text);
    let expected = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": format!("{name}-executor-plugin"),
            "labels": {"workflows.argoproj.io/configmap-type": plugin["kind"]},
            "annotations": plugin["metadata"]["annotations"],
        },
        "data": {
            "sidecar.automountServiceAccountToken": sidecar["automountServiceAccountToken"].to_string(),
            "sidecar.container": text,
        },
    });
    assert_eq!(map, expected);
    // The agent asks the first port.
    let port = container["ports"][0]["containerPort"].to_string();
    assert!(container["args"].as_array().unwrap().contains(&json!(format!("127.0.0.1:{port}"))));
}

#[test]
fn the_agent_may_do_what_it_does_and_nothing_else() {
    let mut objects: BTreeMap<String, Value> = BTreeMap::new();
    // What Argo's own agent may, ours does with as well.
    let of_argos = document("plugin-role.yaml")["rules"].clone();
    for name in ["agent.yaml", "agent-all-namespaces.yaml"] {
        for object in documents(&folder().join(name)) {
            objects.insert(object["kind"].as_str().unwrap().to_owned(), object);
        }
    }
    assert_eq!(of_argos, objects["ClusterRole"]["rules"]);
    let allowed = |role: &str| -> BTreeSet<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let rules = objects[role]["rules"].as_array().unwrap().iter();
        rules
            .flat_map(|rule| {
                let verbs = rule["verbs"].as_array().unwrap().iter();
                let resources = rule["resources"].as_array().unwrap();
                verbs.flat_map(move |verb| resources.iter().map(move |of| (text(of), text(verb))))
            })
            .collect()
    };
    // What `native.rs` sees the agent ask for.
    let needed = |pairs: &[(&str, &str)]| -> BTreeSet<(String, String)> {
        pairs.iter().map(|(of, verb)| ((*of).to_owned(), (*verb).to_owned())).collect()
    };
    let sets =
        [("workflowtasksets", "list"), ("workflowtasksets", "watch"), ("workflowtasksets/status", "patch")];
    let own = [("leases", "get"), ("leases", "create"), ("leases", "update"), ("secrets", "get")];
    assert_eq!(allowed("Role"), needed(&[&sets[..], &own[..]].concat()));
    assert_eq!(allowed("ClusterRole"), needed(&sets));
    // Roles, bindings, account and pods belong together.
    let account = &objects["ServiceAccount"]["metadata"]["name"];
    for kind in ["RoleBinding", "ClusterRoleBinding"] {
        let role = kind.trim_end_matches("Binding");
        assert_eq!(objects[kind]["roleRef"]["name"], objects[role]["metadata"]["name"]);
        assert_eq!(&objects[kind]["subjects"][0]["name"], account);
    }
    let pod = &objects["Deployment"]["spec"]["template"];
    assert_eq!(&pod["spec"]["serviceAccountName"], account);
    assert_eq!(pod["metadata"]["labels"], objects["Deployment"]["spec"]["selector"]["matchLabels"]);
}

#[test]
fn the_commands_of_all_pods_are_known_to_dhow() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let file = entry.unwrap().path();
        for object in documents(&file) {
            let containers = match object["kind"].as_str().unwrap() {
                "Deployment" => object["spec"]["template"]["spec"]["containers"].as_array().unwrap().clone(),
                "ExecutorPlugin" => vec![object["spec"]["sidecar"]["container"].clone()],
                _ => continue,
            };
            for container in containers {
                let args: Vec<String> = serde_json::from_value(container["args"].clone()).unwrap();
                // `--help` behind arguments that are wrong is never printed.
                let desk = crate::Desk::new();
                let args: Vec<&str> = args.iter().map(String::as_str).chain(["--help"]).collect();
                let ended = desk.dhow(&args);
                assert_eq!(ended.code, Some(0), "{}: {ended:?}", file.display());
                // Whoever probes finds what is asked for.
                let at = args.iter().position(|arg| *arg == "--management-addr").unwrap();
                for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
                    let get = &container[probe]["httpGet"];
                    if !get.is_null() {
                        assert_eq!(get["path"], path);
                        assert_eq!(args[at + 1], format!("0.0.0.0:{}", get["port"]));
                    }
                }
                assert!(container["livenessProbe"].is_object(), "{}", file.display());
                count += 1;
            }
        }
    }
    assert!(count >= 3, "{count}");
}
