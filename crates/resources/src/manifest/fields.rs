//! The small kinds of values of a manifest: addresses, names, paths, routes, patterns.

use crate::error::quote;
use crate::tree::{Findings, Node, Position, Value};
use crate::units::parse_address;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// An app-id as Dapr allows it.
pub(crate) fn app_id(findings: &mut Findings, at: Position, path: &str, id: &str) -> bool {
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let valid = id.len() <= 63
        && is_end(id.chars().next())
        && is_end(id.chars().next_back())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !valid {
        findings.add(
            at,
            path,
            format!("{} cannot be an app-id", quote(id)),
            "expected 1 to 63 letters, digits, `-`, `_` or `.`, with a letter or digit at both ends",
        );
    }
    valid
}

/// An address to listen on.
pub(super) fn address(findings: &mut Findings, node: &Node, path: &str) -> Option<SocketAddr> {
    let text = findings.text(node, path)?;
    let address = parse_address(&text);
    let told = |hint| findings.add(node.at, path, format!("{} is not an address", quote(&text)), hint);
    address.map_err(told).ok()
}

/// An address, or "off".
pub(super) fn address_or_off(findings: &mut Findings, node: &Node, path: &str) -> Option<Option<SocketAddr>> {
    match &node.value {
        Value::Text(text) if text == "off" => Some(None),
        Value::Bool(false) => {
            findings.add(node.at, path, "false is not an address", "write \"off\" to switch it off");
            None
        }
        _ => address(findings, node, path).map(Some),
    }
}

/// A path that is not empty.
pub(super) fn path(findings: &mut Findings, node: &Node, path: &str) -> Option<PathBuf> {
    let text = findings.text(node, path)?;
    valid_path(findings, node.at, path, &text).then(|| PathBuf::from(text))
}

/// A list of paths.
pub(super) fn paths(findings: &mut Findings, node: &Node, path: &str) -> Option<Vec<PathBuf>> {
    let texts = findings.texts(node, path).into_iter();
    Some(
        texts
            .filter(|(text, at)| valid_path(findings, *at, path, text))
            .map(|(text, _)| text.into())
            .collect(),
    )
}

/// Whether a text can be a path at all.
pub(super) fn valid_path(findings: &mut Findings, at: Position, path: &str, text: &str) -> bool {
    let valid = !text.is_empty() && !text.contains('\0');
    if !valid {
        findings.add(at, path, "the path is empty or has a NUL character", "expected a path");
    }
    valid
}

/// Text, or a list of them, each without NUL.
pub(super) fn args(findings: &mut Findings, node: &Node, path: &str) -> Option<Vec<String>> {
    let mut args = Vec::new();
    for (text, at) in findings.texts(node, path) {
        if text.contains('\0') {
            findings.add(at, path, "an argument has a NUL character", "");
        }
        args.push(text);
    }
    Some(args)
}

/// Environment variables.
pub(crate) fn env(findings: &mut Findings, node: &Node, path: &str) -> Option<BTreeMap<String, String>> {
    let env = values(findings, node, path)?;
    let table = findings.table(node, path.to_owned())?;
    for entry in table.entries() {
        if entry.key.is_empty() || entry.key.contains(['=', '\0']) {
            findings.add(
                entry.at,
                path,
                format!("{} cannot be the name of an environment variable", quote(&entry.key)),
                "expected a name without `=` and NUL",
            );
        } else if env.get(&entry.key).is_some_and(|value| value.contains('\0')) {
            findings.add(entry.node.at, &table.path_of(&entry.key), "the value has a NUL character", "");
        }
    }
    Some(env)
}

/// Names and single values, as text.
pub(super) fn values(findings: &mut Findings, node: &Node, path: &str) -> Option<BTreeMap<String, String>> {
    let table = findings.table(node, path.to_owned())?;
    let pairs = table.entries().iter().filter_map(|entry| {
        let value = findings.scalar(&entry.node, &table.path_of(&entry.key))?;
        Some((entry.key.clone(), value))
    });
    Some(pairs.collect())
}

/// A path prefix, normalised: no slash at its end.
pub(super) fn route(findings: &mut Findings, at: Position, path: &str, text: &str) -> Option<String> {
    let (message, hint) = if !text.starts_with('/') {
        (
            "does not begin with `/`".to_owned(),
            format!("expected a path prefix such as {}", quote(&format!("/{text}"))),
        )
    } else if text.ends_with('*') {
        let prefix = text.trim_end_matches('*');
        ("has a wildcard".to_owned(), format!("a route is a prefix already: write {}", quote(prefix)))
    } else if text
        .contains(|c: char| matches!(c, '?' | '#' | '*' | '\\') || c.is_whitespace() || c.is_control())
    {
        (
            "is not a path prefix".to_owned(),
            "expected a path without `?`, `#`, `*`, `\\` and blanks".to_owned(),
        )
    } else if text.contains("//") || text.split('/').any(|part| part == "." || part == "..") {
        (
            "has empty or dot segments".to_owned(),
            "expected a path as servers see it, such as `/api/v1`".to_owned(),
        )
    } else {
        let trimmed = text.trim_end_matches('/');
        return Some(if trimmed.is_empty() { "/" } else { trimmed }.to_owned());
    };
    findings.add(at, path, format!("the route {} {message}", quote(text)), hint);
    None
}

/// A host name for routing, in lower case.
pub(super) fn host(findings: &mut Findings, at: Position, path: &str, text: &str) -> Option<String> {
    let name = text.to_ascii_lowercase();
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let valid = name.len() <= 253 && name.strip_prefix("*.").unwrap_or(&name).split('.').all(is_label);
    if !valid {
        let hint = if text.contains(':') {
            "expected a name without scheme and port"
        } else {
            "expected a host name such as \"shop.example.com\", or \"*.example.com\" for all its subdomains"
        };
        findings.add(at, path, format!("{} is not a host name", quote(text)), hint);
    }
    valid.then_some(name)
}

/// A list of patterns of a grant.
pub(super) fn patterns<P>(findings: &mut Findings, node: &Node, path: &str) -> Option<Vec<P>>
where
    P: FromStr,
    P::Err: Display,
{
    let mut patterns = Vec::new();
    for (index, (text, at)) in findings.texts(node, path).into_iter().enumerate() {
        match text.parse::<P>() {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => findings.add(at, &format!("{path}[{index}]"), error.to_string(), ""),
        }
    }
    Some(patterns)
}

/// A list of socket addresses of a grant: a scheme there would never match.
pub(super) fn socket_patterns<P>(findings: &mut Findings, node: &Node, path: &str) -> Option<Vec<P>>
where
    P: FromStr,
    P::Err: Display,
{
    if let Value::List(nodes) = &node.value {
        for node in nodes {
            if let Value::Text(text) = &node.value
                && let Some((_, rest)) = text.split_once("://")
            {
                let hint = format!("expected host and port, such as {}; URLs belong to `http`", quote(rest));
                findings.add(node.at, path, format!("the socket address {} has a scheme", quote(text)), hint);
            }
        }
    }
    patterns(findings, node, path)
}
