//! Which fields there are, and what may stand in them.
//!
//! Source: Argo's field reference. What only pods have is known by name and not looked into.

use super::{Findings, KINDS};
use dhow_resources::error::{nearest, quote};
use dhow_resources::tree::{Node, Value};

/// What a field holds.
#[derive(Clone, Copy)]
enum Kind {
    /// Text.
    Text,
    /// Text, a number or a truth value: all are text to Argo.
    Scalar,
    /// A whole number.
    Integer,
    /// A whole number, or text that becomes one.
    IntegerOrText,
    /// True or false.
    Boolean,
    /// Anything.
    Any,
    /// A template.
    Inline,
    /// A list of anything.
    AnyList,
    /// Names of the user with text behind them.
    TextMap,
    /// An object.
    Object(&'static [Field]),
    /// A list of objects.
    List(&'static [Field]),
    /// A list of lists of objects.
    Groups(&'static [Field]),
    /// Names of the user with objects behind them.
    Map(&'static [Field]),
}

type Field = (&'static str, Kind);

use Kind::{
    Any, AnyList, Boolean, Groups, Inline, Integer, IntegerOrText, List, Map, Object, Scalar, Text, TextMap,
};

const WORKFLOW: &[Field] = &[
    ("apiVersion", Text),
    ("kind", Text),
    ("metadata", Object(METADATA)),
    ("spec", Object(SPEC)),
    ("status", Any),
];

const CONFIG_MAP: &[Field] = &[
    ("apiVersion", Text),
    ("kind", Text),
    ("metadata", Object(METADATA)),
    ("data", TextMap),
    ("binaryData", Any),
    ("immutable", Boolean),
];

const CRON: &[Field] = &[
    ("apiVersion", Text),
    ("kind", Text),
    ("metadata", Object(METADATA)),
    (
        "spec",
        Object(&[
            ("workflowSpec", Object(SPEC)),
            ("workflowMetadata", Object(LABELS)),
            ("schedule", Text),
            ("schedules", AnyList),
            ("timezone", Text),
            ("concurrencyPolicy", Text),
            ("startingDeadlineSeconds", Integer),
            ("successfulJobsHistoryLimit", Integer),
            ("failedJobsHistoryLimit", Integer),
            ("suspend", Boolean),
            ("stopStrategy", Any),
            ("when", Text),
        ]),
    ),
    ("status", Any),
];

const METADATA: &[Field] = &[
    ("name", Text),
    ("generateName", Text),
    ("namespace", Text),
    ("labels", TextMap),
    ("annotations", TextMap),
    ("uid", Text),
    ("resourceVersion", Text),
    ("creationTimestamp", Any),
    ("generation", Any),
    ("managedFields", Any),
    ("ownerReferences", Any),
    ("finalizers", Any),
    ("deletionTimestamp", Any),
    ("deletionGracePeriodSeconds", Any),
    ("selfLink", Any),
];

const LABELS: &[Field] = &[("labels", TextMap), ("annotations", TextMap), ("labelsFrom", Any)];

const SPEC: &[Field] = &[
    ("entrypoint", Text),
    ("arguments", Object(ARGUMENTS)),
    ("templates", List(TEMPLATE)),
    ("onExit", Text),
    ("hooks", Map(HOOK)),
    ("parallelism", Integer),
    ("activeDeadlineSeconds", Integer),
    ("suspend", Boolean),
    ("shutdown", Text),
    ("retryStrategy", Object(RETRY)),
    ("templateDefaults", Object(TEMPLATE)),
    ("workflowTemplateRef", Object(&[("name", Text), ("clusterScope", Boolean)])),
    ("serviceAccountName", Text),
    ("priority", Integer),
    ("affinity", Any),
    ("archiveLogs", Boolean),
    ("artifactGC", Any),
    ("artifactRepositoryRef", Any),
    ("automountServiceAccountToken", Boolean),
    ("dnsConfig", Any),
    ("dnsPolicy", Text),
    ("executor", Any),
    ("executorPlugins", Any),
    ("hostAliases", Any),
    ("hostNetwork", Boolean),
    ("imagePullSecrets", Any),
    ("metrics", Any),
    ("nodeSelector", TextMap),
    ("podDisruptionBudget", Any),
    ("podGC", Any),
    ("podMetadata", Object(LABELS)),
    ("podPriority", Integer),
    ("podPriorityClassName", Text),
    ("podSpecPatch", Text),
    ("schedulerName", Text),
    ("securityContext", Any),
    ("synchronization", Any),
    ("tolerations", Any),
    ("ttlStrategy", Any),
    ("volumeClaimGC", Any),
    ("volumeClaimTemplates", Any),
    ("volumes", Any),
    ("workflowMetadata", Object(LABELS)),
];

const ARGUMENTS: &[Field] = &[("parameters", List(PARAMETER)), ("artifacts", List(ARTIFACT))];

const PARAMETER: &[Field] = &[
    ("name", Text),
    ("value", Any),
    ("default", Scalar),
    ("enum", AnyList),
    ("description", Text),
    ("globalName", Text),
    (
        "valueFrom",
        Object(&[
            ("path", Text),
            ("parameter", Text),
            ("expression", Text),
            ("default", Scalar),
            ("supplied", Any),
            ("configMapKeyRef", Any),
            ("event", Text),
            ("jqFilter", Text),
            ("jsonPath", Text),
        ]),
    ),
];

const ARTIFACT: &[Field] = &[
    ("name", Text),
    ("path", Text),
    ("mode", Integer),
    ("recurseMode", Boolean),
    ("optional", Boolean),
    ("subPath", Text),
    ("from", Text),
    ("fromExpression", Text),
    ("globalName", Text),
    ("deleted", Boolean),
    ("artifactGC", Any),
    ("archive", Object(&[("none", Any), ("tar", Object(&[("compressionLevel", Integer)])), ("zip", Any)])),
    ("archiveLogs", Boolean),
    ("artifactory", Any),
    ("azure", Any),
    ("gcs", Any),
    ("git", Any),
    ("hdfs", Any),
    ("http", Any),
    ("oss", Any),
    ("plugin", Any),
    ("raw", Object(&[("data", Text)])),
    ("s3", Any),
];

const INPUTS: &[Field] = &[("parameters", List(PARAMETER)), ("artifacts", List(ARTIFACT))];

const OUTPUTS: &[Field] =
    &[("parameters", List(PARAMETER)), ("artifacts", List(ARTIFACT)), ("result", Text), ("exitCode", Scalar)];

const REF: &[Field] = &[("name", Text), ("template", Text), ("clusterScope", Boolean)];

const HOOK: &[Field] = &[
    ("template", Text),
    ("templateRef", Object(REF)),
    ("arguments", Object(ARGUMENTS)),
    ("expression", Text),
];

const STEP_FIELDS: [Field; 14] = [
    ("name", Text),
    ("template", Text),
    ("templateRef", Object(REF)),
    ("inline", Inline),
    ("arguments", Object(ARGUMENTS)),
    ("when", Text),
    ("withItems", AnyList),
    ("withParam", Any),
    (
        "withSequence",
        Object(&[
            ("count", IntegerOrText),
            ("start", IntegerOrText),
            ("end", IntegerOrText),
            ("format", Text),
        ]),
    ),
    ("continueOn", Object(&[("error", Boolean), ("failed", Boolean)])),
    ("onExit", Text),
    ("hooks", Map(HOOK)),
    // Tasks only, below.
    ("dependencies", AnyList),
    ("depends", Text),
];

const TASK: &[Field] = &STEP_FIELDS;

const STEP: &[Field] = STEP_FIELDS.split_at(12).0;

const RETRY: &[Field] = &[
    ("limit", IntegerOrText),
    ("retryPolicy", Text),
    ("expression", Text),
    ("affinity", Any),
    ("backoff", Object(&[("duration", Text), ("factor", Scalar), ("cap", Text), ("maxDuration", Text)])),
];

const TEMPLATE: &[Field] = &[
    ("name", Text),
    ("inputs", Object(INPUTS)),
    ("outputs", Object(OUTPUTS)),
    ("steps", Groups(STEP)),
    ("dag", Object(&[("tasks", List(TASK)), ("target", Text), ("failFast", Boolean)])),
    ("suspend", Object(&[("duration", Text)])),
    ("wasm", Any),
    ("plugin", Any),
    ("container", Any),
    ("containerSet", Any),
    ("script", Any),
    ("resource", Any),
    ("data", Any),
    ("http", Any),
    ("retryStrategy", Object(RETRY)),
    ("timeout", Text),
    ("activeDeadlineSeconds", IntegerOrText),
    ("parallelism", Integer),
    ("failFast", Boolean),
    ("memoize", Object(&[("key", Text), ("maxAge", Text), ("cache", Any)])),
    ("synchronization", Any),
    ("daemon", Boolean),
    ("affinity", Any),
    ("annotations", TextMap),
    ("archiveLocation", Any),
    ("automountServiceAccountToken", Boolean),
    ("executor", Any),
    ("hostAliases", Any),
    ("initContainers", Any),
    ("metadata", Object(LABELS)),
    ("metrics", Any),
    ("nodeSelector", TextMap),
    ("pendingTimeout", Text),
    ("podSpecPatch", Text),
    ("priority", Integer),
    ("priorityClassName", Text),
    ("schedulerName", Text),
    ("securityContext", Any),
    ("serviceAccountName", Text),
    ("sidecars", Any),
    ("tolerations", Any),
    ("volumes", Any),
];

/// Checks an object's fields; where the spec is, if it is an object with templates.
pub(super) fn check(root: &Node, findings: &mut Findings<'_>) -> Option<&'static str> {
    let text = |name: &str| match &root.value {
        Value::Map(entries) => {
            entries.iter().find(|entry| entry.key == name).and_then(|entry| entry.node.scalar())
        }
        _ => None,
    };
    let names = KINDS.map(|(kind, _)| kind);
    // Values of parameters may be entries of one.
    if text("kind").as_deref() == Some("ConfigMap") {
        object(root, "", CONFIG_MAP, findings);
        return None;
    }
    let Some(kind) = text("kind") else {
        findings.add("", "has no `kind`", format!("expected one of {}", names.join(", ")));
        return None;
    };
    let Some((name, place)) = KINDS.iter().find(|(known, _)| *known == kind) else {
        let near = nearest(&kind, &names).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
        let hint = format!("expected one of {}{near}", names.join(", "));
        findings.add("kind", format!("{} is no kind that is known here", quote(&kind)), hint);
        return None;
    };
    if text("apiVersion").as_deref() != Some("argoproj.io/v1alpha1") {
        findings.add("apiVersion", "is not that of Argo Workflows", "expected argoproj.io/v1alpha1");
    }
    let fields = if *name == "CronWorkflow" { CRON } else { WORKFLOW };
    object(root, "", fields, findings);
    Some(place)
}

fn object(node: &Node, path: &str, fields: &'static [Field], findings: &mut Findings<'_>) {
    let Value::Map(entries) = &node.value else {
        return wrong(node, path, "a map", findings);
    };
    for entry in entries {
        let inner = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
        let Some((_, kind)) = fields.iter().find(|(name, _)| *name == entry.key) else {
            let known: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
            let mut hint = match known.len() {
                ..=16 => format!("expected one of {}", known.join(", ")),
                _ => String::new(),
            };
            if let Some(name) = nearest(&entry.key, &known) {
                hint.push_str(if hint.is_empty() { "" } else { "; " });
                hint.push_str(&format!("did you mean `{name}`?"));
            }
            findings.add_at(entry.at, path, format!("unknown field {}", quote(&entry.key)), hint);
            continue;
        };
        value(&entry.node, &inner, *kind, findings);
    }
}

fn value(node: &Node, path: &str, kind: Kind, findings: &mut Findings<'_>) {
    let is_template_text = matches!(&node.value, Value::Text(text) if text.contains("{{"));
    match (kind, &node.value) {
        (_, Value::Null) | (Any, _) | (Text, Value::Text(_)) => {}
        (Text, Value::Date(_)) | (AnyList, Value::List(_)) => {}
        (Scalar, Value::List(_) | Value::Map(_)) => wrong(node, path, "a single value", findings),
        (Scalar, _) => {}
        (Integer, Value::Integer(_)) | (Boolean, Value::Bool(_)) => {}
        (IntegerOrText, Value::Integer(_) | Value::Text(_)) => {}
        (TextMap, Value::Map(entries)) => {
            for entry in
                entries.iter().filter(|entry| !matches!(entry.node.value, Value::Text(_) | Value::Null))
            {
                wrong(&entry.node, &format!("{path}.{}", entry.key), "a string in quotes", findings);
            }
        }
        (Object(fields), _) => object(node, path, fields, findings),
        (Inline, _) => object(node, path, TEMPLATE, findings),
        (List(fields), Value::List(nodes)) => {
            for (index, node) in nodes.iter().enumerate() {
                object(node, &format!("{path}[{index}]"), fields, findings);
            }
        }
        (Groups(fields), Value::List(groups)) => {
            for (group, node) in groups.iter().enumerate() {
                let path = format!("{path}[{group}]");
                let Value::List(nodes) = &node.value else {
                    wrong(node, &path, "a list of steps that run at once (`- - name: …`)", findings);
                    continue;
                };
                for (index, node) in nodes.iter().enumerate() {
                    object(node, &format!("{path}[{index}]"), fields, findings);
                }
            }
        }
        (Map(fields), Value::Map(entries)) => {
            for entry in entries {
                object(&entry.node, &format!("{path}.{}", entry.key), fields, findings);
            }
        }
        (Text, _) => wrong(node, path, "a string in quotes", findings),
        (Integer, _) if is_template_text => {
            findings.unreadable.push(path.to_owned());
            findings.add_at(node.at, path, "must be a number; no tag can stand here", "");
        }
        (Integer, _) => wrong(node, path, "an integer", findings),
        (IntegerOrText, _) => wrong(node, path, "an integer or a string", findings),
        (Boolean, _) => wrong(node, path, "true or false", findings),
        (AnyList | List(_) | Groups(_), _) => wrong(node, path, "a list", findings),
        (TextMap | Map(_), _) => wrong(node, path, "a map", findings),
    }
}

fn wrong(node: &Node, path: &str, expected: &str, findings: &mut Findings<'_>) {
    findings.unreadable.push(path.to_owned());
    findings.add_at(node.at, path, format!("must be {expected}, found {}", node.kind()), "");
}
