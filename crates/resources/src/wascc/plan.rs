//! From a waSCC manifest to apps, components and ports.
//!
//! | capability | becomes |
//! |---|---|
//! | `keyvalue`, `eventstreams` | the embedded store; with a `URL` a component `state.redis` |
//! | `messaging` | the embedded broker; with a `URL` a component `pubsub.nats` whose messages have no envelope |
//! | `blobstore` | with a `ROOT` a component `blob.local`, else `blob.s3` |
//! | `http_server` | with a `PORT` a port of the actor's own |
//! | `http_client` | requests to all hosts |
//! | `logging`, `extras` | nothing: they are there |
//!
//! An actor is granted what it is bound to, as its old host had it; what its token claims narrows that. Actors may call
//! each other. Components are scoped to their actor.

use super::{ActorBinding, Wascc};
use crate::component::{Component, MetadataItem, MetadataValue};
use crate::error::{ResourceErrors, nearest, quote};
use crate::manifest::{
    AppConfig, CapabilityConfig, HostConfig, LimitsConfig, Manifest, ModuleSource, TrustConfig,
};
use crate::tree::{Findings, Position};
use dhow_blocks::grants::{Grants, HostPattern, NamePattern};
use std::collections::BTreeMap;
use std::path::Path;

/// An actor whose module was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Identity of its app.
    pub app_id: String,
    /// Public key that its token names, if it has one.
    pub key: Option<String>,
    /// The module: a file, or what a registry has.
    pub module: ModuleSource,
}

/// What a host has to do for a manifest.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The apps.
    pub manifest: Manifest,
    /// The components that bindings name.
    pub components: Vec<Component>,
    /// Ports of apps, by app-id.
    pub ports: Vec<(u16, String)>,
}

/// Values that a binding may have, by capability: what else is there has no effect and would be missed.
const VALUES: [(&str, &[&str]); 8] = [
    ("keyvalue", &["URL"]),
    ("eventstreams", &["URL"]),
    (
        "messaging",
        &[
            "URL",
            "NATS_URL",
            "SUBSCRIPTION",
            "NATS_SUBSCRIPTION",
            "QUEUEGROUP_NAME",
            "CLIENT_JWT",
            "CLIENT_SEED",
            "RAW",
        ],
    ),
    (
        "blobstore",
        &["ROOT", "REGION", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_TOKEN", "TOKEN", "ENDPOINT"],
    ),
    ("httpserver", &["PORT"]),
    ("httpclient", &[]),
    ("logging", &[]),
    ("extras", &[]),
];

impl Wascc {
    /// What to do; `actors` are those of the manifest, in its order.
    pub fn plan(&self, actors: &[Actor]) -> Result<Plan, ResourceErrors> {
        let mut findings = Findings::new(&self.file);
        let dir = self.file.parent().unwrap_or(Path::new(""));
        let all: Vec<NamePattern> = actors.iter().filter_map(|actor| actor.app_id.parse().ok()).collect();
        let mut apps = BTreeMap::new();
        for (actor, at) in actors.iter().zip(&self.actors) {
            let app = AppConfig {
                line: at.line,
                module: actor.module.clone(),
                routes: Vec::new(),
                hosts: Vec::new(),
                args: Vec::new(),
                env: BTreeMap::new(),
                config: BTreeMap::new(),
                dirs: Vec::new(),
                reuse: None,
                filters: Vec::new(),
                health: None,
                bindings: actors.iter().filter_map(Actor::binding).collect(),
                grants: Grants { invoke: all.clone(), ..Grants::default() },
                limits: LimitsConfig::default(),
                build: None,
            };
            if apps.insert(actor.app_id.clone(), app).is_some() {
                let at = Position { line: at.line, column: at.column };
                let message = format!("a second actor would have the name {}", quote(&actor.app_id));
                findings.add(at, "actors", message, "expected modules with different names");
            }
        }
        let mut plan = Plan {
            manifest: Manifest {
                file: self.file.clone(),
                host: HostConfig::new(dir),
                trust: TrustConfig::default(),
                default_limits: LimitsConfig::default(),
                apps,
            },
            components: Vec::new(),
            ports: Vec::new(),
        };
        for binding in &self.bindings {
            match self.actor(actors, &binding.actor) {
                Some(actor) => plan.bind(&mut findings, &self.file, actor, binding),
                None => {
                    let known: Vec<&str> =
                        actors.iter().map(|actor| actor.key.as_deref().unwrap_or(&actor.app_id)).collect();
                    let hint = format!(
                        "expected the public key, the path or the name of one of `actors`: {}",
                        known.join(", ")
                    );
                    let message = format!("there is no actor {}", quote(&binding.actor));
                    findings.add(binding.at(), "bindings", message, hint);
                }
            }
        }
        ResourceErrors::check(findings.into_vec())?;
        Ok(plan)
    }

    fn actor<'a>(&self, actors: &'a [Actor], name: &str) -> Option<&'a Actor> {
        let mut paths = self.actors.iter().zip(actors);
        let by_path = paths.find(|(path, _)| path.path == name).map(|(_, actor)| actor);
        by_path.or_else(|| {
            actors.iter().find(|actor| actor.key.as_deref() == Some(name) || actor.app_id == name)
        })
    }
}

// === impl Plan ===

impl Plan {
    fn bind(&mut self, findings: &mut Findings, file: &Path, actor: &Actor, binding: &ActorBinding) {
        let CapabilityConfig { capability, name, values, .. } = &binding.capability;
        for given in values.keys() {
            let known =
                VALUES.iter().find(|(known, _)| known == capability).map_or(&[][..], |(_, names)| names);
            if !known.iter().any(|known| known.eq_ignore_ascii_case(given)) {
                let hint = match nearest(given, known) {
                    Some(nearest) => format!("did you mean {}?", quote(nearest)),
                    None if known.is_empty() => "expected no values".to_owned(),
                    None => format!("expected one of {}", known.join(", ")),
                };
                let message = format!("the value {} of {capability} is not known", quote(given));
                findings.add(binding.at(), "bindings", message, hint);
            }
        }
        let value = |wanted: &str| {
            let found = values.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };
        let Some(app) = self.manifest.apps.get_mut(&actor.app_id) else { return };
        let mut own = binding.capability.clone();
        let component_name = format!("{}-{capability}-{name}", actor.app_id);
        let mut component = None;
        let mut add = |component_type: &str, metadata: Vec<(&str, String)>| {
            let item = |(name, value): (&str, String)| MetadataItem {
                name: name.to_owned(),
                line: 0,
                value: MetadataValue::Plain(value),
            };
            component = Some(Component {
                name: component_name.clone(),
                namespace: None,
                component_type: component_type.to_owned(),
                version: "v1".to_owned(),
                ignore_errors: false,
                init_timeout: None,
                metadata: metadata.into_iter().map(item).collect(),
                auth_secret_store: None,
                scopes: vec![actor.app_id.clone()],
                file: file.to_owned(),
                line: binding.line,
            });
        };
        match capability.as_str() {
            "keyvalue" | "eventstreams" => match value("URL").map(redis) {
                None => {}
                Some(Ok(metadata)) => add("state.redis", metadata),
                Some(Err(expected)) => {
                    findings.add(binding.at(), "bindings", "the URL is not one of Redis", expected);
                }
            },
            "messaging" => {
                if let Some(url) = value("URL").or(value("NATS_URL")) {
                    let optional = [
                        ("queueGroupName", "QUEUEGROUP_NAME"),
                        ("jwt", "CLIENT_JWT"),
                        ("seedKey", "CLIENT_SEED"),
                    ];
                    let optional = optional
                        .into_iter()
                        .filter_map(|(field, name)| Some((field, value(name)?.to_owned())));
                    let url = if url.contains("://") { url.to_owned() } else { format!("nats://{url}") };
                    add("pubsub.nats", [("natsURL", url)].into_iter().chain(optional).collect());
                    own.values.entry("RAW".to_owned()).or_insert_with(|| "true".to_owned());
                }
            }
            "blobstore" => match value("ROOT") {
                Some(root) => add("blob.local", vec![("rootPath", root.to_owned())]),
                None => {
                    let fields = [
                        ("region", "REGION"),
                        ("endpoint", "ENDPOINT"),
                        ("accessKey", "AWS_ACCESS_KEY"),
                        ("secretKey", "AWS_SECRET_ACCESS_KEY"),
                        ("sessionToken", "AWS_TOKEN"),
                        ("sessionToken", "TOKEN"),
                    ];
                    let fields =
                        fields.into_iter().filter_map(|(field, name)| Some((field, value(name)?.to_owned())));
                    let fields: Vec<_> = fields.collect();
                    if fields.is_empty() {
                        let hint = "expected ROOT of a folder, or REGION and keys of S3";
                        findings.add(binding.at(), "bindings", "a blobstore needs a place", hint);
                    } else {
                        add("blob.s3", fields);
                    }
                }
            },
            "httpserver" => match value("PORT").map(str::parse::<u16>) {
                None => app.routes = vec!["/".to_owned()],
                Some(Ok(port)) if port > 0 => match self.ports.iter().find(|(known, _)| *known == port) {
                    None => self.ports.push((port, actor.app_id.clone())),
                    Some((_, owner)) => {
                        let message = format!("port {port} is that of actor {}", quote(owner));
                        findings.add(binding.at(), "bindings", message, "expected another PORT");
                    }
                },
                Some(_) => {
                    findings.add(binding.at(), "bindings", "the PORT is no port", "expected 1 to 65535")
                }
            },
            "httpclient" => app.grants.http = vec![HostPattern::any()],
            _ => {}
        }
        if let Some(component) = component {
            own.component = Some(component.name.clone());
            self.components.push(component);
        }
        let granted = |usual: &str| {
            let name = own.component.clone().unwrap_or_else(|| usual.to_owned());
            name.parse::<NamePattern>().ok()
        };
        match capability.as_str() {
            "keyvalue" | "eventstreams" => app.grants.state.extend(granted("statestore")),
            "messaging" => {
                app.grants.publish.extend(granted("pubsub"));
                app.grants.subscribe.extend(granted("pubsub"));
            }
            "blobstore" => app.grants.blob.extend(granted("")),
            _ => {}
        }
        if app.bindings.iter().any(|known| known.capability == own.capability && known.name == own.name) {
            let message = format!("the binding {} of {capability} is given twice", quote(name));
            findings.add(binding.at(), "bindings", message, "expected another name in `binding`");
        }
        app.bindings.push(own);
    }
}

/// The metadata of a Redis store for a URL `redis://user:password@host:port/database`. Keys are as the actor gives them,
/// so actors with one URL share them.
fn redis(url: &str) -> Result<Vec<(&'static str, String)>, &'static str> {
    const EXPECTED: &str = "expected redis://user:password@host:port/database, or rediss:// with TLS";
    let (tls, rest) = match url.split_once("://") {
        Some(("redis", rest)) => (false, rest),
        Some(("rediss", rest)) => (true, rest),
        Some(_) => return Err(EXPECTED),
        None => (false, url),
    };
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() || host.starts_with(':') || !database.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(EXPECTED);
    }
    let after_bracket = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
    let host = if after_bracket.contains(':') { host.to_owned() } else { format!("{host}:6379") };
    let mut metadata = vec![("redisHost", host), ("keyPrefix", "none".to_owned())];
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    for (field, value) in [("redisUsername", name), ("redisPassword", password), ("redisDB", database)] {
        if !value.is_empty() {
            metadata.push((field, value.to_owned()));
        }
    }
    if tls {
        metadata.push(("enableTLS", "true".to_owned()));
    }
    Ok(metadata)
}

// === impl Actor ===

impl Actor {
    /// Others call an actor by its key.
    fn binding(&self) -> Option<CapabilityConfig> {
        Some(CapabilityConfig {
            capability: "actor".to_owned(),
            name: self.key.clone()?,
            component: Some(self.app_id.clone()),
            values: BTreeMap::new(),
        })
    }
}

// === impl ActorBinding ===

impl ActorBinding {
    fn at(&self) -> Position {
        Position { line: self.line, column: self.column }
    }
}
