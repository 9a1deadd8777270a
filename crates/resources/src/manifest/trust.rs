//! `[trust]`: which modules the host runs, and what policies are asked.

use super::{TrustConfig, fields, limits};
use crate::error::quote;
use crate::tree::{Findings, Node};
use std::path::Path;

/// Reads the table; paths are joined to the manifest's folder.
pub(super) fn read(findings: &mut Findings, node: &Node, dir: &Path) -> TrustConfig {
    let Some(mut table) = findings.table(node, "trust".to_owned()) else { return TrustConfig::default() };
    let trust = TrustConfig {
        store: table.read(findings, "store", fields::path).map(|path| dir.join(path)),
        require_signed: table.read(findings, "require_signed", Findings::boolean).unwrap_or(false),
        require_claims: table.read(findings, "claims", claims).unwrap_or(false),
        policy: table.read(findings, "policy", fields::path).map(|path| dir.join(path)),
        opa: table.read(findings, "opa", Findings::text),
        policy_timeout: table.read(findings, "policy_timeout", limits::duration),
        policy_per_invocation: table.read(findings, "policy_per_invocation", limits::duration),
    };
    table.finish(findings);
    trust
}

/// Whether a token has to name capabilities to give any.
fn claims(findings: &mut Findings, node: &Node, path: &str) -> Option<bool> {
    match findings.text(node, path)?.as_str() {
        "required" => Some(true),
        "optional" => Some(false),
        other => {
            let hint = "expected \"required\" or \"optional\"";
            findings.add(node.at, path, format!("{} is not known", quote(other)), hint);
            None
        }
    }
}
