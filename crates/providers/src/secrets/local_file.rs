//! `secretstores.local.file`: secrets in a JSON file.
//!
//! Nested objects and lists become names with a separator: `{"redis": {"password": "x"}, "keys": ["a"]}`
//! holds `redis:password` and `keys:0`. With `multiValued` the first level names the secrets, and what is
//! below it their values. The file is read when it is needed and again when it has changed; Dapr reads it
//! once. Numbers and booleans are given as JSON writes them.

use crate::file::{self, Reloaded};
use crate::registry::{ComponentSpec, Open, OpenError, Provider};
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::Metadata;
use dhow_blocks::secrets::{Secret, SecretStore};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "secretstores.local.file",
    aliases: &[],
    versions: &["v1"],
    fields: &["secretsFile", "nestedSeparator", "multiValued"],
    open: Open::Secrets(|component, _| Box::pin(open(component))),
};

/// How nested values get their names.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    separator: String,
    multi_valued: bool,
}

type Secrets = BTreeMap<String, Secret>;

/// Secrets in a file.
pub struct LocalFile {
    file: Arc<Reloaded<Secrets>>,
    multi_valued: bool,
}

async fn open(component: ComponentSpec) -> Result<Arc<dyn SecretStore>, OpenError> {
    let Some(path) = component.field(&["secretsFile"]) else {
        return Err(component.invalid(&["secretsFile"], "given: the path of a JSON file"));
    };
    let multi_valued = component.truthy(&["multiValued"]);
    let separator = component.field(&["nestedSeparator"]).unwrap_or(":").to_owned();
    let shape = Shape { separator, multi_valued };
    let file = Reloaded::new(path.into(), move |text: &str| parse(text, &shape));
    let store = LocalFile::new(file, multi_valued);
    let backend = |reason| OpenError::Backend { component: component.name.clone(), reason };
    match store.secrets().await {
        Ok(Some(_)) => Ok(Arc::new(store)),
        Ok(None) => Err(backend(format!("there is no file {}", store.file.path().display()))),
        Err(error) => Err(backend(error.to_string())),
    }
}

/// Reads the secrets in a JSON text.
pub(super) fn parse(text: &str, shape: &Shape) -> Result<Secrets, String> {
    // The error of the JSON parser shows places and no values.
    let content: Map<String, Value> = serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => "expected one JSON object: {\"name\": \"value\"}".to_owned(),
        _ => format!("is not JSON: {error}"),
    })?;
    let mut secrets = Secrets::new();
    if !shape.multi_valued {
        let mut values = BTreeMap::new();
        for (name, value) in content {
            flatten(name, value, &shape.separator, &mut values)?;
        }
        let secret =
            |(name, value): (String, String)| (name.clone(), Secret(BTreeMap::from([(name, value)])));
        return Ok(values.into_iter().map(secret).collect());
    }
    for (name, value) in content {
        let mut values = BTreeMap::new();
        match value {
            Value::Object(fields) => {
                for (field, value) in fields {
                    flatten(field, value, &shape.separator, &mut values)?;
                }
            }
            value => flatten(name.clone(), value, &shape.separator, &mut values)?,
        }
        secrets.insert(name, Secret(values));
    }
    Ok(secrets)
}

/// The parser has bounded the depth.
fn flatten(
    name: String,
    value: Value,
    separator: &str,
    values: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    let text = match value {
        Value::Object(fields) => {
            return fields.into_iter().try_for_each(|(field, value)| {
                flatten(format!("{name}{separator}{field}"), value, separator, values)
            });
        }
        Value::Array(items) => {
            return items.into_iter().enumerate().try_for_each(|(index, value)| {
                flatten(format!("{name}{separator}{index}"), value, separator, values)
            });
        }
        Value::Null => String::new(),
        Value::String(text) => text,
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    };
    match values.entry(name) {
        Entry::Occupied(entry) => Err(format!(
            "two secrets have the name {:?}; rename one, or choose another nestedSeparator",
            entry.key()
        )),
        Entry::Vacant(entry) => {
            entry.insert(text);
            Ok(())
        }
    }
}

// === impl Shape ===

impl Default for Shape {
    fn default() -> Shape {
        Shape { separator: ":".to_owned(), multi_valued: false }
    }
}

// === impl LocalFile ===

impl LocalFile {
    pub(super) fn new(file: Reloaded<Secrets>, multi_valued: bool) -> LocalFile {
        LocalFile { file: Arc::new(file), multi_valued }
    }

    /// All secrets; none if there is no file.
    pub(super) async fn secrets(&self) -> Result<Option<Arc<Secrets>>, BlockError> {
        file::read(&self.file).await
    }

    async fn present(&self) -> Result<Arc<Secrets>, BlockError> {
        self.secrets().await?.ok_or_else(|| {
            BlockError::unavailable(format!("the file {} is gone; put it back", self.file.path().display()))
        })
    }
}

impl std::fmt::Debug for LocalFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalFile").field("path", &self.file.path()).finish_non_exhaustive()
    }
}

#[async_trait]
impl SecretStore for LocalFile {
    fn has_multiple_values(&self) -> bool {
        self.multi_valued
    }

    async fn get(&self, name: &str, _metadata: &Metadata) -> Result<Option<Secret>, BlockError> {
        Ok(self.present().await?.get(name).cloned())
    }

    async fn get_all(&self, _metadata: &Metadata) -> Result<Secrets, BlockError> {
        Ok((*self.present().await?).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let text = r#"{
            "plain": "x", "number": 5, "big": 12345678901234567890, "yes": true, "nothing": null, "": "empty",
            "redis": {"password": "p", "hosts": ["a", {"b": "c"}], "none": {}}
        }"#;
        let list = |secrets: &Secrets| -> Vec<String> {
            let values = |(name, Secret(values)): (&String, &Secret)| {
                let values: Vec<_> = values.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("{name}: {}", values.join(" "))
            };
            secrets.iter().map(values).collect()
        };
        let secrets = parse(text, &Shape::default()).unwrap();
        assert_eq!(
            list(&secrets),
            [
                ": =empty",
                "big: big=12345678901234567890",
                "nothing: nothing=",
                "number: number=5",
                "plain: plain=x",
                "redis:hosts:0: redis:hosts:0=a",
                "redis:hosts:1:b: redis:hosts:1:b=c",
                "redis:password: redis:password=p",
                "yes: yes=true",
            ]
        );
        let shape = Shape { separator: "__".to_owned(), multi_valued: true };
        let secrets = parse(text, &shape).unwrap();
        assert_eq!(list(&secrets).last().map(String::as_str), Some("yes: yes=true"),);
        assert_eq!(list(&secrets)[5], "redis: hosts__0=a hosts__1__b=c password=p");
        assert_eq!(list(&secrets)[4], "plain: plain=x");
    }

    #[test]
    fn mistakes_show_no_value() {
        let deep = format!("{}{}", "{\"a\":".repeat(1000), "}".repeat(1000));
        for text in [
            "",
            "hunter2",
            "[\"hunter2\"]",
            "\"hunter2\"",
            "{\"a\": hunter2}",
            "{\"a\": \"hunter2\"",
            "{\"a:b\": \"hunter2\", \"a\": {\"b\": \"hunter2\"}}",
            &deep,
        ] {
            let error = parse(text, &Shape::default()).err().unwrap();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
