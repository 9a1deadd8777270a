//! `secretstores.local.env`: the host's own environment variables.
//!
//! What the host itself keeps secret, `APP_API_TOKEN` and everything that begins with `DAPR_` (in any case),
//! is not shown; to an app such a variable does not exist. Dapr answers with an empty value for a variable
//! that does not exist; here there is none.

use crate::registry::{Open, Provider};
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::Metadata;
use dhow_blocks::secrets::{Secret, SecretStore};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "secretstores.local.env",
    aliases: &[],
    versions: &["v1"],
    fields: &["prefix"],
    open: Open::Secrets(|component, _| {
        Box::pin(async move {
            let prefix = component.field(&["prefix"]).unwrap_or_default();
            Ok(Arc::new(LocalEnv::new(prefix.to_owned())) as _)
        })
    }),
};

/// The environment variables whose names begin with a prefix; secrets are named without it.
#[derive(Clone, Debug)]
pub struct LocalEnv {
    prefix: String,
}

// === impl LocalEnv ===

impl LocalEnv {
    /// All variables that begin with the prefix.
    pub fn new(prefix: String) -> LocalEnv {
        LocalEnv { prefix }
    }
}

#[async_trait]
impl SecretStore for LocalEnv {
    async fn get(&self, name: &str, _metadata: &Metadata) -> Result<Option<Secret>, BlockError> {
        Ok(collect(&self.prefix, std::env::vars_os()).remove(name))
    }

    async fn get_all(&self, _metadata: &Metadata) -> Result<BTreeMap<String, Secret>, BlockError> {
        Ok(collect(&self.prefix, std::env::vars_os()))
    }
}

/// The secrets among these variables. One whose value is not text is left out.
fn collect(prefix: &str, variables: impl Iterator<Item = (OsString, OsString)>) -> BTreeMap<String, Secret> {
    let secrets = variables.filter_map(|(variable, value)| {
        let (variable, value) = (variable.into_string().ok()?, value.into_string().ok()?);
        let name = variable.strip_prefix(prefix).filter(|name| !name.is_empty())?;
        is_open(&variable).then(|| (name.to_owned(), Secret(BTreeMap::from([(name.to_owned(), value)]))))
    });
    secrets.collect()
}

fn is_open(variable: &str) -> bool {
    let variable = variable.to_ascii_uppercase();
    variable != "APP_API_TOKEN" && !variable.starts_with("DAPR_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn what_is_shown() {
        let variables = [
            ("KEY", "v"),
            ("EMPTY", ""),
            ("MY_KEY", "mine"),
            ("MY_", "nothing"),
            ("DAPR_API_TOKEN", "no"),
            ("dapr_x", "no"),
            ("app_api_token", "no"),
            ("DAPRLIKE", "yes"),
            ("MY_DAPR_X", "yes"),
        ];
        let variables = || variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        let binary = (OsString::from("BINARY"), OsString::from_vec(vec![0xff]));
        let names = |prefix: &str| {
            collect(prefix, variables().chain([binary.clone()])).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(names(""), ["DAPRLIKE", "EMPTY", "KEY", "MY_", "MY_DAPR_X", "MY_KEY"]);
        assert_eq!(names("MY_"), ["DAPR_X", "KEY"]);
        // A prefix opens nothing that is closed.
        assert_eq!(names("DAPR_"), [""; 0]);
        assert_eq!(names("APP_"), [""; 0]);
        assert_eq!(names("my_"), [""; 0]);
        let secret = collect("MY_", variables()).remove("KEY").unwrap();
        assert_eq!(secret.0, BTreeMap::from([("KEY".to_owned(), "mine".to_owned())]));
        assert!(!format!("{secret:?}").contains("mine"));
    }
}
