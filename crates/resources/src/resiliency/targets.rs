//! `spec.targets` of a resiliency resource, and whether the policies that they name are there.

use super::defaults::{PolicyKind, built_in_retry};
use super::{ActorTarget, AppTarget, CircuitBreakerScope, ComponentTarget, PolicyNames, Resiliency, Targets};
use crate::error::{MAX_FINDINGS, ResourceError, nearest, quote};
use crate::tree::{Findings, Position, Table};
use crate::values::{self, count_or_default, named_tables, word};
use std::collections::BTreeSet;
use std::path::Path;

/// No more names than this are compared to find the nearest one.
const MAX_NEAR: usize = 200;

const SCOPES: &[(&str, CircuitBreakerScope)] = &[
    ("type", CircuitBreakerScope::Type),
    ("id", CircuitBreakerScope::Id),
    ("both", CircuitBreakerScope::Both),
];

/// A place where a target names a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    kind: PolicyKind,
    name: String,
    path: String,
    at: Position,
}

pub(super) fn read(findings: &mut Findings, table: &mut Table<'_>) -> Option<(Targets, Vec<Reference>)> {
    let mut references = Vec::new();
    let apps = table.optional(findings, "apps", named_tables(|f, table| app(f, table, &mut references)));
    let actors =
        table.optional(findings, "actors", named_tables(|f, table| actor(f, table, &mut references)));
    let components =
        table.optional(findings, "components", named_tables(|f, table| component(f, table, &mut references)));
    let targets = Targets {
        apps: apps.unwrap_or_default(),
        actors: actors.unwrap_or_default(),
        components: components.unwrap_or_default(),
    };
    Some((targets, references))
}

fn app(findings: &mut Findings, table: &mut Table<'_>, references: &mut Vec<Reference>) -> Option<AppTarget> {
    let policies = names(findings, table, references);
    let size = table.optional(findings, "circuitBreakerCacheSize", count_or_default);
    Some(AppTarget { policies, circuit_breaker_cache_size: size.unwrap_or(100) })
}

fn actor(
    findings: &mut Findings,
    table: &mut Table<'_>,
    references: &mut Vec<Reference>,
) -> Option<ActorTarget> {
    let policies = names(findings, table, references);
    let before = findings.count();
    let scope = table.optional(findings, "circuitBreakerScope", word(SCOPES));
    if policies.circuit_breaker.is_some() && scope.is_none() && findings.count() == before {
        let hint = "expected type or id or both: which actors share the circuit breaker";
        findings.add(table.at, &table.path, "`circuitBreakerScope` is missing", hint);
    }
    let size = table.optional(findings, "circuitBreakerCacheSize", count_or_default);
    Some(ActorTarget {
        policies,
        circuit_breaker_scope: scope,
        circuit_breaker_cache_size: size.unwrap_or(5000),
    })
}

fn component(
    findings: &mut Findings,
    table: &mut Table<'_>,
    references: &mut Vec<Reference>,
) -> Option<ComponentTarget> {
    let inbound = table.optional(findings, "inbound", values::table(|f, t| Some(names(f, t, references))));
    let outbound = table.optional(findings, "outbound", values::table(|f, t| Some(names(f, t, references))));
    Some(ComponentTarget { inbound: inbound.unwrap_or_default(), outbound: outbound.unwrap_or_default() })
}

fn names(findings: &mut Findings, table: &mut Table<'_>, references: &mut Vec<Reference>) -> PolicyNames {
    let mut name = |kind: PolicyKind| {
        let field = kind.field();
        let name = table.optional(findings, field, values::name)?;
        let at = table.get(field)?.at;
        let path = table.path_of(field);
        references.push(Reference { kind, name: name.clone(), path, at });
        Some(name)
    };
    PolicyNames {
        timeout: name(PolicyKind::Timeout),
        retry: name(PolicyKind::Retry),
        circuit_breaker: name(PolicyKind::CircuitBreaker),
    }
}

/// The names of all policies of one kind.
fn names_of(kind: PolicyKind, resiliencies: &[Resiliency]) -> BTreeSet<&str> {
    let policies = resiliencies.iter().map(|resiliency| &resiliency.policies);
    match kind {
        PolicyKind::Timeout => policies.flat_map(|p| p.timeouts.keys()).map(String::as_str).collect(),
        PolicyKind::Retry => policies.flat_map(|p| p.retries.keys()).map(String::as_str).collect(),
        PolicyKind::CircuitBreaker => {
            policies.flat_map(|p| p.circuit_breakers.keys()).map(String::as_str).collect()
        }
    }
}

/// Places where targets name policies that no resource has.
pub(crate) fn unknown_policies(resiliencies: &[Resiliency]) -> Vec<ResourceError> {
    let kinds = [PolicyKind::Timeout, PolicyKind::Retry, PolicyKind::CircuitBreaker];
    let known = kinds.map(|kind| (kind, names_of(kind, resiliencies)));
    let references =
        resiliencies.iter().flat_map(|r| r.references.iter().map(|reference| (&r.file, reference)));
    references
        .filter_map(|(file, reference)| {
            let name = reference.name.as_str();
            let is_built_in = reference.kind == PolicyKind::Retry && built_in_retry(name).is_some();
            let (_, known) = known.iter().find(|(kind, _)| *kind == reference.kind)?;
            (!is_built_in && !known.contains(name)).then(|| reference.unknown(known, file))
        })
        .take(MAX_FINDINGS)
        .collect()
}

// === impl Reference ===

impl Reference {
    fn unknown(&self, known: &BTreeSet<&str>, file: &Path) -> ResourceError {
        let (what, list) = match self.kind {
            PolicyKind::Timeout => ("timeout", "timeouts"),
            PolicyKind::Retry => ("retry policy", "retries"),
            PolicyKind::CircuitBreaker => ("circuit breaker", "circuitBreakers"),
        };
        let known: Vec<&str> = known.iter().copied().take(MAX_NEAR).collect();
        let mut hint = format!("expected a name under spec.policies.{list}");
        if let Some(near) = nearest(&self.name, &known) {
            hint.push_str(&format!("; did you mean {}?", quote(near)));
        }
        ResourceError {
            file: file.to_owned(),
            line: self.at.line,
            column: self.at.column,
            field: self.path.clone(),
            message: format!("there is no {what} {}", quote(&self.name)),
            hint,
        }
    }
}
