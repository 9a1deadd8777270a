//! What a `wasm` template says about its module: which, how it is called, what it may do.

use dhow_blocks::grants::{Grants, HostPattern, NamePattern};
use dhow_resources::error::nearest;
use dhow_resources::units::parse_quantity;
use serde_json::Value;
use std::collections::BTreeMap;

/// A module and how it is run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Where the module is: a path, a URL, or an image of a registry.
    pub image: String,
    /// The program's name and first arguments.
    pub command: Vec<String>,
    /// More arguments.
    pub args: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// A script: it lies in a file whose path is the last argument.
    pub source: Option<String>,
    /// What it may do.
    pub grants: Grants,
    /// Requests that it may have under way at once.
    pub requests: Option<usize>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// The keys that the earlier plugin handed to its modules as options; none in the newer form.
    pub plugin_options: Option<BTreeMap<String, Value>>,
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}{}{hint}", if field.is_empty() { "wasm" } else { field }, if hint.is_empty() { "" } else { "; " })]
pub struct Wrong {
    /// Its path inside the options.
    pub field: String,
    /// What was found.
    pub message: String,
    /// What was expected.
    pub hint: String,
}

const FIELDS: [&str; 9] =
    ["image", "module", "command", "args", "env", "source", "permissions", "resources", "imagePullPolicy"];

const PERMISSIONS: [&str; 14] = [
    "http",
    "connect",
    "state",
    "publish",
    "subscribe",
    "invoke",
    "bindings",
    "secrets",
    "configuration",
    "lock",
    "sequencer",
    "blob",
    "cryption",
    "email",
];

fn wrong(field: &str, message: impl Into<String>, hint: impl Into<String>) -> Wrong {
    Wrong { field: field.to_owned(), message: message.into(), hint: hint.into() }
}

fn unknown(field: &str, name: &str, known: &[&str]) -> Wrong {
    let near = nearest(name, known).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    wrong(field, format!("unknown field `{name}`"), format!("expected one of {}{near}", known.join(", ")))
}

impl Options {
    /// Reads the value of `wasm`.
    pub fn read(value: &Value) -> Result<Options, Wrong> {
        let Value::Object(map) = value else {
            return Err(wrong("", "must be a map", "expected `image` and more"));
        };
        let mut options = Options::default();
        let module = map.get("module");
        // The earlier plugin's form hands on what it does not know.
        if let Some(module) = module {
            options.image = earlier_module(module)?;
            let others = map.iter().filter(|(key, _)| !["module", "permissions"].contains(&key.as_str()));
            options.plugin_options = Some(others.map(|(key, value)| (key.clone(), value.clone())).collect());
            if map.contains_key("image") {
                return Err(wrong("module", "stands beside `image`", "use one of them"));
            }
        } else if let Some(name) = map.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            return Err(unknown("", name, &FIELDS));
        }
        for (key, value) in map {
            match key.as_str() {
                "image" => options.image = text(value, "image")?,
                "permissions" => options.permissions(value)?,
                "command" if module.is_none() => options.command = texts(value, "command")?,
                "args" if module.is_none() => options.args = texts(value, "args")?,
                "env" if module.is_none() => options.env = environment(value)?,
                "source" if module.is_none() => options.source = Some(text(value, "source")?),
                "resources" if module.is_none() => options.memory = memory(value)?,
                _ => {}
            }
        }
        if options.image.trim().is_empty() {
            return Err(wrong(
                "",
                "has no `image`",
                "expected the module: a file, a URL or an image of a registry",
            ));
        }
        Ok(options)
    }

    fn permissions(&mut self, value: &Value) -> Result<(), Wrong> {
        let Value::Object(map) = value else {
            return Err(wrong("permissions", "must be a map", "expected such as {http: [api.example.com]}"));
        };
        for (kind, value) in map {
            let field = format!("permissions.{kind}");
            if kind == "http" {
                self.grants.http = hosts(self.http(value, &field)?, &field)?;
                continue;
            }
            let list = texts(value, &field)?;
            if kind == "connect" {
                self.grants.connect = hosts(list, &field)?;
                continue;
            }
            let place = match kind.as_str() {
                "state" => &mut self.grants.state,
                "publish" => &mut self.grants.publish,
                "subscribe" => &mut self.grants.subscribe,
                "invoke" => &mut self.grants.invoke,
                "bindings" => &mut self.grants.bindings,
                "secrets" => &mut self.grants.secrets,
                "configuration" => &mut self.grants.configuration,
                "lock" => &mut self.grants.lock,
                "sequencer" => &mut self.grants.sequencer,
                "blob" => &mut self.grants.blob,
                "cryption" => &mut self.grants.cryption,
                "email" => &mut self.grants.email,
                _ => return Err(unknown("permissions", kind, &PERMISSIONS)),
            };
            for pattern in list.iter().filter(|pattern| !pattern.contains("{{")) {
                let pattern = pattern.parse::<NamePattern>();
                place.push(pattern.map_err(|error| wrong(&field, error.to_string(), ""))?);
            }
        }
        Ok(())
    }

    /// A list of hosts, or the earlier plugin's map.
    fn http(&mut self, value: &Value, field: &str) -> Result<Vec<String>, Wrong> {
        let Value::Object(map) = value else { return texts(value, field) };
        let mut hosts = Vec::new();
        for (key, value) in map {
            match key.as_str() {
                "allowed_hosts" | "allowedHosts" => hosts = texts(value, &format!("{field}.{key}"))?,
                "max_concurrent_requests" | "maxConcurrentRequests" => {
                    let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
                    let expected = "expected a number above zero";
                    let count = count.filter(|count| *count > 0);
                    self.requests =
                        Some(count.ok_or_else(|| {
                            wrong(&format!("{field}.{key}"), "is no such number", expected)
                        })?);
                }
                _ => return Err(unknown(field, key, &["allowed_hosts", "max_concurrent_requests"])),
            }
        }
        Ok(hosts)
    }

    /// Whether it may use anything of the host's building blocks, which are opened only then.
    pub fn needs_blocks(&self) -> bool {
        let grants = &self.grants;
        let lists = [
            &grants.state,
            &grants.publish,
            &grants.subscribe,
            &grants.invoke,
            &grants.bindings,
            &grants.secrets,
            &grants.configuration,
            &grants.lock,
            &grants.sequencer,
            &grants.blob,
            &grants.cryption,
            &grants.email,
        ];
        lists.iter().any(|list| !list.is_empty())
    }
}

fn earlier_module(value: &Value) -> Result<String, Wrong> {
    let Value::Object(map) = value else {
        return Err(wrong("module", "must be a map", "expected {oci: IMAGE}"));
    };
    match map.iter().next() {
        Some((kind, value)) if map.len() == 1 && ["oci", "url", "path"].contains(&kind.as_str()) => {
            text(value, &format!("module.{kind}"))
        }
        _ => Err(wrong("module", "must have exactly one key", "expected one of oci, url, path")),
    }
}

fn hosts(list: Vec<String>, field: &str) -> Result<Vec<HostPattern>, Wrong> {
    let plain = list.iter().filter(|pattern| !pattern.contains("{{"));
    let pattern = |pattern: &String| {
        // The earlier plugin's hosts were URLs, with a path that meant nothing.
        let pattern = pattern.trim_end_matches('/');
        pattern.parse::<HostPattern>().map_err(|error| wrong(field, error.to_string(), ""))
    };
    plain.map(pattern).collect()
}

fn text(value: &Value, field: &str) -> Result<String, Wrong> {
    value.as_str().map(str::to_owned).ok_or_else(|| wrong(field, "must be a string in quotes", ""))
}

fn texts(value: &Value, field: &str) -> Result<Vec<String>, Wrong> {
    let Value::Array(list) = value else { return Err(wrong(field, "must be a list of strings", "")) };
    let element = |value: &Value| match value {
        Value::Array(_) | Value::Object(_) => Err(wrong(field, "must be a list of strings", "")),
        other => Ok(crate::model::scalar_text(other)),
    };
    list.iter().map(element).collect()
}

/// A list of `{name, value}` as containers have it, or a map.
fn environment(value: &Value) -> Result<BTreeMap<String, String>, Wrong> {
    if let Value::Object(map) = value {
        return Ok(map.iter().map(|(key, value)| (key.clone(), crate::model::scalar_text(value))).collect());
    }
    let Value::Array(list) = value else {
        return Err(wrong("env", "must be a list", "expected [{name: NAME, value: VALUE}]"));
    };
    let mut environment = BTreeMap::new();
    for (index, entry) in list.iter().enumerate() {
        let field = format!("env[{index}]");
        let Some(name) = entry.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
            return Err(wrong(&field, "has no `name`", ""));
        };
        if entry.get("valueFrom").is_some() {
            return Err(wrong(
                &field,
                "`valueFrom` is for containers; a module gets values only",
                "expected `value`",
            ));
        }
        let value = entry.get("value").map(crate::model::scalar_text).unwrap_or_default();
        environment.insert(name.to_owned(), value);
    }
    Ok(environment)
}

fn memory(value: &Value) -> Result<Option<u64>, Wrong> {
    let Some(memory) = value.pointer("/limits/memory").map(crate::model::scalar_text) else {
        return Ok(None);
    };
    if memory.contains("{{") {
        return Ok(None);
    }
    let field = "resources.limits.memory";
    parse_quantity(&memory)
        .map(Some)
        .map_err(|expected| wrong(field, format!("is {memory:?}"), expected.to_string()))
}

#[cfg(test)]
mod tests {
    use super::Options;
    use serde_json::json;

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let cases = [
            (json!({"imag": "a.wasm"}), "wasm: unknown field `imag`; "),
            (json!({}), "wasm: has no `image`; "),
            (json!({"image": "a.wasm", "args": 1}), "args: must be a list of strings"),
            (
                json!({"image": "a.wasm", "env": [{"name": "A", "valueFrom": {}}]}),
                "env[0]: `valueFrom` is for containers; a module gets values only; expected `value`",
            ),
        ];
        for (options, expected) in cases {
            let found = Options::read(&options).unwrap_err().to_string();
            assert!(found.starts_with(expected), "{options}: {found}");
        }
    }
}
