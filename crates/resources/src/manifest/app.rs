//! `[apps.<id>]`: one app of a manifest.

use super::{
    AppConfig, BuildConfig, Claim, DirConfig, FilterConfig, ModuleSource, capability, fields, limits,
};
use crate::error::quote;
use crate::tree::{Entry, Findings, Node, Position, Table};
use dhow_blocks::grants::Grants;
use std::path::Path;

/// Reads one app. Its routes are added to `claims` even when something else of it is wrong.
pub(super) fn read(
    findings: &mut Findings,
    entry: &Entry,
    path: &str,
    dir: &Path,
    claims: &mut Vec<Claim>,
) -> Option<AppConfig> {
    let mut table = findings.table(&entry.node, path.to_owned())?;
    let module = table.read(findings, "module", |findings, node, path| module(findings, node, path, dir));
    if table.get("module").is_none() {
        findings.add(
            entry.at,
            path,
            "the app has no module",
            "expected module = \"<file>.wasm\", an http(s) URL, or oci://<registry>/<repository>:<tag>",
        );
    }
    let module = with_key(findings, &mut table, module, dir);

    let mut routes = Vec::new();
    if let Some(texts) = table.read(findings, "routes", |f, node, path| Some(f.texts(node, path))) {
        let path = table.path_of("routes");
        routes.extend(
            texts.iter().filter_map(|(text, at)| Some((fields::route(findings, *at, &path, text)?, *at))),
        );
    }
    if let Some(node) = table.get("route") {
        let path = table.path_of("route");
        if table.get("routes").is_some() {
            findings.add(node.at, &path, "both `route` and `routes` are given", "expected one of them");
        } else if let Some(text) = findings.text(node, &path) {
            routes.extend(fields::route(findings, node.at, &path, &text).map(|route| (route, node.at)));
        }
    }
    let hosts = table.read(findings, "hosts", |findings, node, path| {
        let texts = findings.texts(node, path).into_iter();
        Some(
            texts
                .filter_map(|(text, at)| Some((fields::host(findings, at, path, &text)?, at)))
                .collect::<Vec<_>>(),
        )
    });
    let hosts = hosts.unwrap_or_default();
    if routes.is_empty()
        && table.get("routes").is_none()
        && table.get("route").is_none()
        && let Some((_, at)) = hosts.first()
    {
        routes.push(("/".to_owned(), *at));
    }
    add_claims(claims, &entry.key, &routes, &hosts);

    let args = table.read(findings, "args", fields::args).unwrap_or_default();
    let env = table.read(findings, "env", fields::env).unwrap_or_default();
    let config = table.read(findings, "config", fields::values).unwrap_or_default();
    let dirs = table.read(findings, "dirs", |findings, node, path| Some(dirs(findings, node, path, dir)));
    let reuse = table.read(findings, "reuse", limits::count);
    let health = table.read(findings, "health", |findings, node, path| {
        let text = findings.text(node, path)?;
        fields::route(findings, node.at, path, &text)
    });
    let filters = table.read(findings, "filters", |findings, node, path| Some(findings.texts(node, path)));
    let filters = filters.unwrap_or_default().into_iter();
    let bindings = table.read(findings, "bindings", capability::read).unwrap_or_default();
    let grants = table.read(findings, "grants", grants).unwrap_or_default();
    let limits = table.read(findings, "limits", limits::read).unwrap_or_default();
    let build = table.read(findings, "build", |findings, node, path| build(findings, node, path, dir));
    table.finish(findings);
    Some(AppConfig {
        line: entry.at.line,
        module: module?,
        routes: routes.into_iter().map(|(route, _)| route).collect(),
        hosts: hosts.into_iter().map(|(host, _)| host).collect(),
        args,
        env,
        config,
        dirs: dirs.unwrap_or_default(),
        reuse,
        health,
        filters: filters
            .map(|(app_id, at)| FilterConfig { app_id, line: at.line, column: at.column })
            .collect(),
        bindings,
        grants,
        limits,
        build,
    })
}

fn add_claims(
    claims: &mut Vec<Claim>,
    app_id: &str,
    routes: &[(String, Position)],
    hosts: &[(String, Position)],
) {
    for (prefix, at) in routes {
        let claim = |host| Claim { app_id: app_id.to_owned(), host, prefix: prefix.clone(), at: *at };
        if hosts.is_empty() {
            claims.push(claim(None));
        }
        claims.extend(hosts.iter().map(|(host, _)| claim(Some(host.clone()))));
    }
}

fn module(findings: &mut Findings, node: &Node, path: &str, dir: &Path) -> Option<ModuleSource> {
    let text = findings.text(node, path)?;
    match text.split_once("://") {
        Some(("http" | "https", rest)) if !rest.is_empty() => Some(ModuleSource::Url(text)),
        Some(("oci", rest)) => match rest.split_once('/') {
            Some((registry, name)) if !registry.is_empty() && !name.is_empty() => {
                Some(ModuleSource::Oci { reference: text, cosign_key: None })
            }
            _ => {
                let message = "the reference names no registry, or nothing in it";
                findings.add(node.at, path, message, "expected oci://<registry>/<repository>:<tag>");
                None
            }
        },
        Some((scheme, _)) => {
            let message = format!("modules cannot be fetched over {}", quote(scheme));
            findings.add(
                node.at,
                path,
                message,
                "expected a path, or a URL that begins with http://, https:// or oci://",
            );
            None
        }
        None => {
            fields::valid_path(findings, node.at, path, &text).then(|| ModuleSource::Path(dir.join(text)))
        }
    }
}

/// Adds the key by which the module must be signed. A key that nothing is verified with would protect nobody.
fn with_key(
    findings: &mut Findings,
    table: &mut Table<'_>,
    module: Option<ModuleSource>,
    dir: &Path,
) -> Option<ModuleSource> {
    let key = table.read(findings, "cosign_key", fields::path);
    let node_at = table.get("cosign_key").map(|node| node.at);
    match (module?, key, node_at) {
        (ModuleSource::Oci { reference, .. }, key, _) => {
            Some(ModuleSource::Oci { reference, cosign_key: key.map(|key| dir.join(key)) })
        }
        (module, None, _) | (module, _, None) => Some(module),
        (module, Some(_), Some(at)) => {
            let path = table.path_of("cosign_key");
            findings.add(
                at,
                &path,
                "only modules in a registry are signed with cosign",
                "expected module = \"oci://…\"",
            );
            Some(module)
        }
    }
}

fn dirs(findings: &mut Findings, node: &Node, path: &str, dir: &Path) -> Vec<DirConfig> {
    let nodes = findings.list(node, path, "a list of { host, guest, write }");
    let mut dirs: Vec<DirConfig> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let Some(mut table) = findings.table(node, format!("{path}[{index}]")) else { continue };
        let host = table.read(findings, "host", fields::path);
        let guest = table.read(findings, "guest", guest_path);
        let write = table.read(findings, "write", Findings::boolean).unwrap_or(false);
        for field in ["host", "guest"] {
            if table.get(field).is_none() {
                findings.add(
                    table.at,
                    &table.path,
                    format!("`{field}` is missing"),
                    "expected { host, guest, write }",
                );
            }
        }
        if let (Some(host), Some(guest)) = (host, guest) {
            if dirs.iter().any(|other| other.guest == guest) {
                let message = format!("the guest path {} is given twice", quote(&guest));
                findings.add(table.at, &table.path, message, "expected one folder for each guest path");
            }
            dirs.push(DirConfig { host: dir.join(host), guest, write });
        }
        table.finish(findings);
    }
    dirs
}

fn guest_path(findings: &mut Findings, node: &Node, path: &str) -> Option<String> {
    let text = findings.text(node, path)?;
    let valid = text.starts_with('/') && !text.contains('\0') && !text.split('/').any(|part| part == "..");
    if !valid {
        let hint = "expected an absolute path without `..`, such as \"/data\"";
        findings.add(node.at, path, format!("the guest path {} is not absolute", quote(&text)), hint);
    }
    valid.then(|| match text.trim_end_matches('/') {
        "" => "/".to_owned(),
        trimmed => trimmed.to_owned(),
    })
}

pub(crate) fn grants(findings: &mut Findings, node: &Node, path: &str) -> Option<Grants> {
    let mut table = findings.table(node, path.to_owned())?;
    let grants = Grants {
        state: table.read(findings, "state", fields::patterns).unwrap_or_default(),
        invoke: table.read(findings, "invoke", fields::patterns).unwrap_or_default(),
        publish: table.read(findings, "publish", fields::patterns).unwrap_or_default(),
        subscribe: table.read(findings, "subscribe", fields::patterns).unwrap_or_default(),
        bindings: table.read(findings, "bindings", fields::patterns).unwrap_or_default(),
        secrets: table.read(findings, "secrets", fields::patterns).unwrap_or_default(),
        configuration: table.read(findings, "configuration", fields::patterns).unwrap_or_default(),
        lock: table.read(findings, "lock", fields::patterns).unwrap_or_default(),
        sequencer: table.read(findings, "sequencer", fields::patterns).unwrap_or_default(),
        blob: table.read(findings, "blob", fields::patterns).unwrap_or_default(),
        cryption: table.read(findings, "cryption", fields::patterns).unwrap_or_default(),
        email: table.read(findings, "email", fields::patterns).unwrap_or_default(),
        jobs: table.read(findings, "jobs", fields::patterns).unwrap_or_default(),
        update: table.read(findings, "update", fields::patterns).unwrap_or_default(),
        http: table.read(findings, "http", fields::patterns).unwrap_or_default(),
        connect: table.read(findings, "connect", fields::socket_patterns).unwrap_or_default(),
        listen: table.read(findings, "listen", fields::socket_patterns).unwrap_or_default(),
        limit: None,
    };
    table.finish(findings);
    Some(grants)
}

fn build(findings: &mut Findings, node: &Node, path: &str, dir: &Path) -> Option<BuildConfig> {
    let mut table = findings.table(node, path.to_owned())?;
    let command = table.read(findings, "command", Findings::text);
    let is_blank = command.as_ref().is_some_and(|command| command.trim().is_empty());
    if is_blank || table.get("command").is_none() {
        findings.add(
            table.at,
            path,
            "`command` is missing",
            "expected the command line that makes the module",
        );
    }
    let watch = table.read(findings, "watch", fields::paths).unwrap_or_else(|| vec!["src".into()]);
    table.finish(findings);
    Some(BuildConfig { command: command?, watch: watch.into_iter().map(|path| dir.join(path)).collect() })
}
