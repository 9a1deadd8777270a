//! Functions that came over the network, kept for the next host: a file beside the modules that are stored, an object of
//! what each was installed with.

use super::{Function, FunctionError, FunctionSpec, Functions, Loaded, MAX_FUNCTIONS, select, write};
use dhow_resources::layotto;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io;

/// The file in the folder of stored modules.
const FILE: &str = "installed.json";

impl Functions {
    /// Installs again what was installed when the last host ended. What is not there now is waited for; what the
    /// configuration has by now, or cannot be understood any more, is told of and left out.
    pub async fn restore(&self) -> Result<(), FunctionError> {
        let path = self.store.join(FILE);
        let not_kept = |reason: String| {
            let advice = "mend it, or remove it and install the functions again";
            FunctionError::NotKept(format!("{}: {reason}; {advice}", path.display()))
        };
        let text = match tokio::fs::read_to_string(&path).await {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(not_kept(error.to_string())),
        };
        let items: Map<String, Value> =
            serde_json::from_str(&text).map_err(|error| not_kept(format!("it is damaged: {error}")))?;
        let mut known = self.known.lock().await;
        for (name, item) in items.into_iter().take(MAX_FUNCTIONS) {
            let item = item.to_string();
            let spec = match layotto::Function::parse(&item) {
                Ok(function) => FunctionSpec::new(&function),
                Err(error) => {
                    tracing::error!(app_id = name, "not installed again: {error}");
                    continue;
                }
            };
            if !select(&known, &name).is_empty() {
                tracing::warn!(app_id = name, "not installed again: the configuration has it");
                continue;
            }
            let loaded = match self.load(&spec, 1).await {
                Loaded::Runs(running) if running.id != name => {
                    Loaded::Unusable(format!("its module declares the id {:?} by now", running.id))
                }
                loaded => loaded,
            };
            known.insert(name, Function::new(spec, Some(item), loaded));
        }
        self.publish(&known);
        Ok(())
    }

    /// Keeps what is installed. Only this user reads it: a configuration may hold a password.
    pub(super) async fn remember(&self, known: &BTreeMap<String, Function>) -> Result<(), FunctionError> {
        let item = |(name, function): (&String, &Function)| {
            let mut item: Value = serde_json::from_str(function.installed.as_ref()?).ok()?;
            item.as_object_mut()?.insert("instance_num".to_owned(), function.spec.weight.into());
            Some((name.clone(), item))
        };
        let items: Map<String, Value> = known.iter().filter_map(item).collect();
        let (folder, path) = (self.store.clone(), self.store.join(FILE));
        if items.is_empty() && !path.exists() {
            return Ok(());
        }
        let text = Value::Object(items).to_string();
        let kept = tokio::task::spawn_blocking(move || {
            let written = write(&folder, &path, text.as_bytes());
            written.map_err(|error| format!("what is installed cannot be kept: {}: {error}", path.display()))
        });
        kept.await.unwrap_or_else(|panicked| Err(panicked.to_string())).map_err(FunctionError::NotKept)
    }
}
