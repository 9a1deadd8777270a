//! The interface of the earlier Wasm plugin for Argo: `/work/input.json` goes in, `/work/result.json` comes out, and
//! artifacts are below `/work/artifacts-in` and `/work/artifacts-out`.
//!
//! Every step finds the input file, and may leave a result file; the folders are for templates in the earlier form
//! (`module: {oci: …}`).

use super::options::Options;
use super::room::Room;
use crate::controller::Identity;
use crate::model::Template;
use crate::node::Phase;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a module said itself.
#[derive(Default)]
pub(super) struct Said {
    /// Succeeded or Failed.
    pub(super) phase: Phase,
    /// For people.
    pub(super) message: String,
    /// Outputs.
    pub(super) parameters: BTreeMap<String, String>,
    /// In the place of what it printed.
    pub(super) result: Option<String>,
    /// Where artifacts lie that are not where the template says.
    pub(super) artifacts: BTreeMap<String, String>,
}

/// What is in `/work/input.json`.
pub(super) fn input(workflow: &Identity, template: &Template, options: &Options) -> Value {
    let parameters: Value = template
        .inputs
        .parameters
        .iter()
        .map(|parameter| json!({"name": parameter.name, "value": parameter.value}))
        .collect();
    let artifacts: Value = template
        .inputs
        .artifacts
        .iter()
        .map(|artifact| json!({"name": artifact.name, "path": artifact.path}))
        .collect();
    let plugin_options: Value = options
        .plugin_options
        .iter()
        .flatten()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    json!({
        "workflow_name": workflow.name,
        "plugin_options": plugin_options,
        "parameters": parameters,
        "artifacts": artifacts,
    })
}

/// Where the earlier form has an input artifact.
pub(super) fn input_path(path: &str) -> String {
    format!("/work/artifacts-in/{}", path.trim_start_matches('/'))
}

/// Where the earlier form has an output artifact.
pub(super) fn output_place(path: &str) -> String {
    format!("/work/artifacts-out/{}", path.trim_start_matches('/'))
}

/// Where the module left an output artifact, if it did so in the earlier form's place.
pub(super) fn output_path(room: &Room, path: &str) -> Option<String> {
    let path = output_place(path);
    room.has(&path).then_some(path)
}

/// Reads `/work/result.json`; none if the module left none.
pub(super) fn result(room: &Room) -> Result<Option<Said>, String> {
    let Some(text) = room.read("/work/result.json")? else { return Ok(None) };
    let wrong = |what: &str| format!("/work/result.json: {what}");
    let value: Value =
        serde_json::from_str(&text).map_err(|error| wrong(&format!("it is no JSON: {error}")))?;
    let phase = match value.get("phase").and_then(Value::as_str) {
        Some("Succeeded") => Phase::Succeeded,
        Some("Failed") => Phase::Failed,
        _ => return Err(wrong("`phase` must be Succeeded or Failed")),
    };
    let message = value.get("message").map(crate::model::scalar_text).unwrap_or_default();
    let mut parameters = BTreeMap::new();
    for parameter in value.pointer("/outputs/parameters").and_then(Value::as_array).into_iter().flatten() {
        let Some(name) = parameter.get("name").and_then(Value::as_str) else {
            return Err(wrong("an output parameter has no `name`"));
        };
        // Values of any kind become texts, as they are to Argo.
        let value = match parameter.get("value") {
            Some(value) => crate::expression::text(value),
            None => return Err(wrong(&format!("the output parameter {name:?} has no `value`"))),
        };
        parameters.insert(name.to_owned(), value);
    }
    Ok(Some(Said { phase, message, parameters, ..Said::default() }))
}
