//! Who may do what: secrets, invocation, routes of the API.

use crate::error::quote;
use crate::object::required_scalar;
use crate::tree::{Findings, Table};
use crate::values::{self, required_word, word};
use std::collections::BTreeSet;

const ACTIONS: &[(&str, Action)] = &[("allow", Action::Allow), ("deny", Action::Deny)];

const PROTOCOLS: &[(&str, Protocol)] = &[("http", Protocol::Http), ("grpc", Protocol::Grpc)];

const VERBS: &[(&str, &str)] = &[
    ("*", "*"),
    ("CONNECT", "CONNECT"),
    ("DELETE", "DELETE"),
    ("GET", "GET"),
    ("HEAD", "HEAD"),
    ("OPTIONS", "OPTIONS"),
    ("PATCH", "PATCH"),
    ("POST", "POST"),
    ("PUT", "PUT"),
    ("TRACE", "TRACE"),
];

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is allowed.
    Allow,
    /// It is refused.
    Deny,
}

/// A protocol of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP.
    Http,
    /// gRPC.
    Grpc,
}

/// One of `spec.secrets.scopes`: which secrets of a store are readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretScope {
    /// `storeName`.
    pub store: String,
    /// `defaultAccess`. Default allow.
    pub default_access: Action,
    /// `allowedSecrets`: when there is one, all others are refused.
    pub allowed: Vec<String>,
    /// `deniedSecrets`.
    pub denied: Vec<String>,
}

/// `spec.accessControl`: who may invoke the apps of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessControl {
    /// `defaultAction`, for apps without a policy. Not given, it is deny, or allow if the list of policies is empty.
    pub default_action: Action,
    /// `trustDomain` of the host. Default `public`.
    pub trust_domain: String,
    /// `policies`.
    pub policies: Vec<AppPolicy>,
}

/// One of `spec.accessControl.policies`: what one app may invoke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppPolicy {
    /// `appId` of the caller.
    pub app_id: String,
    /// `defaultAction`, for paths without an operation; `None`: the one of [`AccessControl`].
    pub default_action: Option<Action>,
    /// `trustDomain` of the caller.
    pub trust_domain: String,
    /// `namespace` of the caller.
    pub namespace: String,
    /// `operations`.
    pub operations: Vec<Operation>,
}

/// One of `operations` of an [`AppPolicy`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// `name`: a path, perhaps with `*`; it may lack its first slash.
    pub name: String,
    /// `httpVerb`: methods in upper case, or `*`.
    pub http_verbs: Vec<&'static str>,
    /// `action`.
    pub action: Action,
}

/// One of `spec.api.allowed` and `spec.api.denied`: a group of routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRule {
    /// `name`, e.g. `state`.
    pub name: String,
    /// `version`, e.g. `v1.0`.
    pub version: String,
    /// `protocol`.
    pub protocol: Protocol,
}

// === impl SecretScope ===

impl SecretScope {
    /// Whether a secret is readable, by its name.
    pub fn allows(&self, name: &str) -> bool {
        let is_in = |names: &[String]| names.iter().any(|other| other == name);
        if !self.allowed.is_empty() {
            return is_in(&self.allowed);
        }
        !is_in(&self.denied) && self.default_access == Action::Allow
    }
}

pub(super) fn secrets(findings: &mut Findings, table: &mut Table<'_>) -> Option<Vec<SecretScope>> {
    let mut stores = BTreeSet::new();
    let scope = |findings: &mut Findings, table: &mut Table<'_>| {
        let store = required_scalar(findings, table, "storeName", "expected the name of a secret store");
        let default_access = table.optional(findings, "defaultAccess", word(ACTIONS));
        let allowed = table.optional(findings, "allowedSecrets", values::texts);
        let denied = table.optional(findings, "deniedSecrets", values::texts);
        let store = store?;
        if !stores.insert(store.clone()) {
            let message = format!("the store {} is given twice", quote(&store));
            findings.add(table.at, &table.path, message, "expected one scope for each store");
        }
        Some(SecretScope {
            store,
            default_access: default_access.unwrap_or(Action::Allow),
            allowed: allowed.unwrap_or_default(),
            denied: denied.unwrap_or_default(),
        })
    };
    table.optional(findings, "scopes", values::tables("a list of {storeName, defaultAccess}", scope))
}

/// Nothing but empty fields is no access control at all, as in Dapr.
pub(super) fn access_control(
    findings: &mut Findings,
    table: &mut Table<'_>,
) -> Option<Option<AccessControl>> {
    let default_action = table.optional(findings, "defaultAction", word(ACTIONS));
    let trust_domain = table.optional(findings, "trustDomain", values::name);
    let policies =
        table.optional(findings, "policies", values::tables("a list of {appId, operations}", app_policy));
    let list_is_empty = policies.as_ref().is_some_and(Vec::is_empty);
    if default_action.is_none() && trust_domain.is_none() && (policies.is_none() || list_is_empty) {
        return Some(None);
    }
    let otherwise = if list_is_empty { Action::Allow } else { Action::Deny };
    Some(Some(AccessControl {
        default_action: default_action.unwrap_or(otherwise),
        trust_domain: trust_domain.unwrap_or_else(|| "public".to_owned()),
        policies: policies.unwrap_or_default(),
    }))
}

fn app_policy(findings: &mut Findings, table: &mut Table<'_>) -> Option<AppPolicy> {
    let app_id = required_scalar(findings, table, "appId", "expected the app-id of the caller");
    let default_action = table.optional(findings, "defaultAction", word(ACTIONS));
    let trust_domain = required_scalar(findings, table, "trustDomain", "expected a name such as public");
    let namespace = required_scalar(findings, table, "namespace", "expected a name such as default");
    let operations =
        table.optional(findings, "operations", values::tables("a list of {name, action}", operation));
    Some(AppPolicy {
        app_id: app_id?,
        default_action,
        trust_domain: trust_domain?,
        namespace: namespace?,
        operations: operations.unwrap_or_default(),
    })
}

fn operation(findings: &mut Findings, table: &mut Table<'_>) -> Option<Operation> {
    let name = required_scalar(findings, table, "name", "expected a path such as /orders/*");
    let http_verbs = table.optional(findings, "httpVerb", values::words(VERBS));
    let action = required_word(findings, table, "action", ACTIONS);
    Some(Operation { name: name?, http_verbs: http_verbs.unwrap_or_default(), action: action? })
}

pub(super) fn apis(findings: &mut Findings, table: &mut Table<'_>) -> Option<(Vec<ApiRule>, Vec<ApiRule>)> {
    let mut rules = |field| {
        let list = values::tables("a list of {name, version, protocol}", api_rule);
        table.optional(findings, field, list).unwrap_or_default()
    };
    Some((rules("allowed"), rules("denied")))
}

/// A rule without a protocol applies to nothing in Dapr: who denies something and forgets it should know.
fn api_rule(findings: &mut Findings, table: &mut Table<'_>) -> Option<ApiRule> {
    let name = required_scalar(findings, table, "name", "expected a name such as state");
    let version = required_scalar(findings, table, "version", "expected a version such as v1.0");
    let protocol = required_word(findings, table, "protocol", PROTOCOLS);
    Some(ApiRule { name: name?, version: version?, protocol: protocol? })
}
