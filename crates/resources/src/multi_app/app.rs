//! One app of a `dapr.yaml`, and what wins where several places say something.

use super::shared::{self, Place, Shared};
use super::{App, HealthCheck, LogDestination};
use crate::error::quote;
use crate::manifest::fields;
use crate::object::required_scalar;
use crate::tree::{Findings, Node, Position, Table};
use crate::values;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// Reads one app and gives it what it takes from `common`.
pub(super) fn read(
    findings: &mut Findings,
    table: &mut Table<'_>,
    place: Place<'_>,
    common: &Shared,
    ids: &mut HashMap<String, usize>,
) -> Option<App> {
    let hint = "expected the folder that the app runs in, such as ./orders";
    let dir = required_scalar(findings, table, "appDirPath", hint);
    let dir_at = table.get("appDirPath").map_or(table.at, |node| node.at);
    let app_dir = dir.and_then(|dir| place.folder(findings, dir_at, &table.path_of("appDirPath"), &dir));
    let given = table.optional(findings, "appID", values::name);
    let app_id = match (given, &app_dir) {
        (Some(id), _) => {
            let at = table.get("appID").map_or(table.at, |node| node.at);
            checked_id(findings, at, &table.path_of("appID"), id, ids)
        }
        (None, Some(dir)) => match folder_name(dir) {
            Some(id) => checked_id(findings, dir_at, &table.path_of("appID"), id, ids),
            None => {
                let hint = "expected an id, as the folder has no name";
                findings.add(dir_at, &table.path, "`appID` is missing", hint);
                None
            }
        },
        (None, None) => None,
    };
    // Without its folder an app has no paths: the errors that would follow say nothing new.
    let home = place.home;
    let mut own = shared::read(findings, table, Place { dir: app_dir.as_deref(), home });
    let ports = ["appPort", "daprHTTPPort", "daprGRPCPort", "daprInternalGRPCPort", "metricsPort"]
        .map(|field| table.optional(findings, field, shared::port));
    let app_channel_address = table.optional(findings, "appChannelAddress", values::name);
    let unix_domain_socket = table.optional(findings, "unixDomainSocket", values::name);
    let command = table.optional(findings, "command", command);
    let no_use = ["profilePort", "containerImage", "containerImagePullPolicy", "createService"];
    shared::unused(table, &no_use, &mut own.unused);

    let line = table.at.line;
    let app_dir = app_dir?;
    let own_dir = app_dir.join(".dapr");
    let resources = resources(&own, &own_dir, common, home);
    let config = config(&own, &own_dir, common, home);
    let shared = own.or(common);
    Some(App {
        app_id: app_id?,
        app_dir,
        resources,
        config,
        command: command.unwrap_or_default(),
        env: shared.env,
        app_port: ports[0],
        app_protocol: shared.app_protocol.unwrap_or_default().with_tls(shared.app_ssl.unwrap_or(false)),
        app_channel_address,
        http_port: ports[1],
        grpc_port: ports[2],
        internal_grpc_port: ports[3],
        metrics_port: ports[4],
        unix_domain_socket: unix_domain_socket.map(PathBuf::from),
        api_listen_addresses: shared.api_listen_addresses.unwrap_or_default(),
        max_concurrency: shared.max_concurrency.flatten(),
        max_body: shared.max_body,
        read_buffer: shared.read_buffer,
        health_check: shared.health_enabled.unwrap_or(false).then(|| HealthCheck {
            path: shared.health_path.unwrap_or_else(|| "/healthz".to_owned()),
            interval: Duration::from_secs(shared.health_interval.unwrap_or(5).into()),
            timeout: Duration::from_millis(shared.health_timeout.unwrap_or(500).into()),
            threshold: shared.health_threshold.unwrap_or(3),
        }),
        api_logging: shared.api_logging.unwrap_or(false),
        log_level: shared.log_level,
        host_log: shared.host_log.unwrap_or(LogDestination::File),
        app_log: shared.app_log.unwrap_or(LogDestination::FileAndConsole),
        unused: shared.unused,
        line,
    })
}

/// An app-id that is valid and that no other app has.
fn checked_id(
    findings: &mut Findings,
    at: Position,
    path: &str,
    id: String,
    ids: &mut HashMap<String, usize>,
) -> Option<String> {
    if !fields::app_id(findings, at, path, &id) {
        return None;
    }
    if let Some(line) = ids.insert(id.clone(), at.line) {
        let message = format!("the app-id {} is already in line {line}", quote(&id));
        findings.add(at, path, message, "expected every app to have its own: set `appID`");
    }
    Some(id)
}

/// The name of a folder that may be written as `.` or `..`.
fn folder_name(dir: &Path) -> Option<String> {
    let mut name = PathBuf::new();
    for part in std::path::absolute(dir).ok()?.components() {
        match part {
            Component::ParentDir => drop(name.pop()),
            part => name.push(part),
        }
    }
    Some(name.file_name()?.to_string_lossy().into_owned())
}

fn resources(own: &Shared, own_dir: &Path, common: &Shared, home: Option<&Path>) -> Vec<PathBuf> {
    let usual = own_dir.join("resources");
    if !own.resources.is_empty() {
        return own.resources.clone();
    }
    if usual.is_dir() {
        return vec![usual];
    }
    if !common.resources.is_empty() {
        return common.resources.clone();
    }
    let default = default_dir(own, common, home).map(|dir| dir.join("components"));
    default.filter(|dir| dir.is_dir()).into_iter().collect()
}

fn config(own: &Shared, own_dir: &Path, common: &Shared, home: Option<&Path>) -> Option<PathBuf> {
    let is_file = |path: &PathBuf| path.is_file();
    let usual = own_dir.join("config.yaml");
    let default = || default_dir(own, common, home).map(|dir| dir.join("config.yaml")).filter(is_file);
    let own_or_usual = own.config.clone().or_else(|| Some(usual).filter(is_file));
    own_or_usual.or_else(|| common.config.clone()).or_else(default)
}

/// Where Dapr was installed, with its default files.
fn default_dir(own: &Shared, common: &Shared, home: Option<&Path>) -> Option<PathBuf> {
    let dir = own.runtime_path.as_deref().or(common.runtime_path.as_deref()).or(home)?;
    Some(dir.join(".dapr"))
}

fn command(findings: &mut Findings, node: &Node, path: &str) -> Option<Vec<String>> {
    let nodes = findings.list(node, path, "a list: the program and its arguments");
    let mut command = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(text) = findings.scalar(node, &path) else { continue };
        if text.contains('\0') || (index == 0 && text.is_empty()) {
            findings.add(
                node.at,
                &path,
                "is empty or has a NUL character",
                "expected a program or an argument",
            );
        }
        command.push(text);
    }
    Some(command)
}
