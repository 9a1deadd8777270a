//! Which APIs are switched on, by the configuration's `spec.api`.
//!
//! Names, versions and rules: Dapr documentation, "Selectively enable Dapr APIs on the Dapr sidecar". With an allow-list
//! everything that is not on it is off; what is on the deny-list is off in any case. Health checks are always on. Over
//! HTTP an API has the version of its path (`v1.0`, `v1.0-alpha1`), over gRPC that of its method (`v1`, `v1alpha1`).

use dhow_resources::configuration::Configuration;
use dhow_resources::configuration::access::{ApiRule, Protocol};

/// What is on.
#[derive(Debug, Default)]
pub(crate) struct Apis {
    http: Rules,
    grpc: Rules,
}

/// The rules of one protocol: names and versions.
#[derive(Debug, Default)]
struct Rules {
    allowed: Option<Vec<(String, String)>>,
    denied: Vec<(String, String)>,
}

/// Every name that a rule can have.
const NAMES: [&str; 24] = [
    "actors",
    "bindings",
    "blob",
    "configuration",
    "conversation",
    "crypto",
    "email",
    "healthz",
    "hello",
    "invoke",
    "jobs",
    "lock",
    "metadata",
    "phone",
    "publish",
    "secrets",
    "sequencer",
    "shutdown",
    "sms",
    "state",
    "subscribe",
    "subtlecrypto",
    "unlock",
    "workflows",
];

/// What a word in the name of a gRPC method says about its API; the first that fits decides.
const METHODS: [(&str, &str); 38] = [
    ("SubscribeTopicEvents", "subscribe"),
    ("Actor", "actors"),
    ("InvokeService", "invoke"),
    ("InvokeBinding", "bindings"),
    ("State", "state"),
    ("PublishEvent", "publish"),
    ("Secret", "secrets"),
    ("Metadata", "metadata"),
    ("Configuration", "configuration"),
    ("TryLock", "lock"),
    ("Unlock", "unlock"),
    ("Subtle", "subtlecrypto"),
    ("Encrypt", "crypto"),
    ("Decrypt", "crypto"),
    ("Workflow", "workflows"),
    ("ScheduleJob", "jobs"),
    ("GetJob", "jobs"),
    ("DeleteJob", "jobs"),
    ("ListJobs", "jobs"),
    ("Converse", "conversation"),
    ("Shutdown", "shutdown"),
    ("RegisterReminder", "actors"),
    ("UnregisterReminder", "actors"),
    ("RegisterTimer", "actors"),
    ("UnregisterTimer", "actors"),
    ("LockKeepAlive", "lock"),
    ("GetNextId", "sequencer"),
    ("SayHello", "hello"),
    ("DelayMessage", "publish"),
    ("File", "blob"),
    ("Object", "blob"),
    ("Upload", "blob"),
    ("Part", "blob"),
    ("SignURL", "blob"),
    ("RateLimit", "blob"),
    ("Email", "email"),
    ("Sms", "sms"),
    ("Voice", "phone"),
];

// === impl Apis ===

impl Apis {
    /// What a configuration says. Names that mean nothing are logged.
    pub(crate) fn new(configuration: &Configuration) -> Apis {
        let Configuration { allowed_apis, denied_apis, .. } = configuration;
        for rule in allowed_apis.iter().chain(denied_apis).filter(|rule| !NAMES.contains(&&*rule.name)) {
            tracing::warn!(
                "{}: spec.api names {:?}, which is no API; the APIs are {}",
                configuration.file.display(),
                rule.name,
                NAMES.join(", ")
            );
        }
        let rules = |protocol| Rules {
            // As with Dapr, an allow-list is one for each protocol.
            allowed: Some(of(allowed_apis, protocol)).filter(|rules| !rules.is_empty()),
            denied: of(denied_apis, protocol),
        };
        Apis { http: rules(Protocol::Http), grpc: rules(Protocol::Grpc) }
    }

    /// Whether the API of a path is on, by the path's first two segments.
    pub(crate) fn allow_http(&self, segments: &[&str]) -> bool {
        if self.http.is_empty() {
            return true;
        }
        match segments {
            ["v1.0", "healthz"] | ["v1.0", "healthz", "outbound"] => true,
            // Bulk publishing came without a number of its own.
            ["v1.0", "publish", "bulk", ..] => self.http.allow("publish", "v1.0-alpha1"),
            [version @ ("v1.0" | "v1.0-alpha1" | "v1.0-alpha2" | "v1.0-beta1"), name, ..] => {
                self.http.allow(name, version)
            }
            // A path of the target's own, with its id in a header.
            _ => self.http.allow("invoke", "v1.0"),
        }
    }

    /// Whether a method of the gRPC service is on.
    pub(crate) fn allow_grpc(&self, method: &str) -> bool {
        if self.grpc.is_empty() {
            return true;
        }
        let versions = [("Alpha1", "v1alpha1"), ("Alpha2", "v1alpha2"), ("Beta1", "v1beta1")];
        let version = versions.iter().find(|(suffix, _)| method.ends_with(suffix));
        let name = METHODS.iter().find(|(word, _)| method.contains(word));
        let name = name.map_or("", |(_, name)| name);
        self.grpc.allow(name, version.map_or("v1", |(_, version)| version))
    }
}

fn of(rules: &[ApiRule], protocol: Protocol) -> Vec<(String, String)> {
    let rules = rules.iter().filter(|rule| rule.protocol == protocol);
    rules.map(|rule| (rule.name.clone(), rule.version.clone())).collect()
}

// === impl Rules ===

impl Rules {
    fn is_empty(&self) -> bool {
        self.allowed.is_none() && self.denied.is_empty()
    }

    fn allow(&self, name: &str, version: &str) -> bool {
        let has = |rules: &[(String, String)]| rules.iter().any(|(n, v)| n == name && v == version);
        !has(&self.denied) && self.allowed.as_deref().is_none_or(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn apis(spec: &str) -> Apis {
        let yaml = format!("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nspec:\n  api:\n{spec}");
        Apis::new(&dhow_resources::configuration::parse(&yaml, Path::new("c.yaml")).unwrap())
    }

    const ALLOW: &str = "
    allowed:
      - { name: state, version: v1.0, protocol: http }
      - { name: publish, version: v1.0-alpha1, protocol: http }
      - { name: state, version: v1, protocol: grpc }
      - { name: jobs, version: v1alpha1, protocol: grpc }
      - { name: secrets, version: v1, protocol: grpc }
    denied:
      - { name: secrets, version: v1, protocol: grpc }
";

    #[test]
    fn paths_are_on_or_off() {
        let (allow, deny) =
            (apis(ALLOW), apis("    denied: [{ name: invoke, version: v1.0, protocol: http }]\n"));
        for (path, by_allow, by_deny) in [
            ("v1.0/state/store/key", true, true),
            ("v1.0-alpha1/state/store/query", false, true),
            ("v1.0/publish/pubsub/topic", false, true),
            ("v1.0/publish/bulk/pubsub/topic", true, true),
            ("v1.0-alpha1/publish/bulk/pubsub/topic", true, true),
            ("v1.0/secrets/store/name", false, true),
            ("v1.0/invoke/app/method/x", false, false),
            ("orders/7", false, false),
            ("v1.0/metadata", false, true),
            ("v1.0/healthz", true, true),
            ("v1.0/healthz/outbound", true, true),
            ("v1.0/healthz/x", false, true),
        ] {
            let segments: Vec<&str> = path.split('/').collect();
            assert_eq!(allow.allow_http(&segments), by_allow, "{path}");
            assert_eq!(deny.allow_http(&segments), by_deny, "{path}");
            assert!(Apis::default().allow_http(&segments), "{path}");
        }
    }

    #[test]
    fn methods_are_on_or_off() {
        let apis = apis(ALLOW);
        for (method, on) in [
            ("GetState", true),
            ("GetBulkState", true),
            ("ExecuteStateTransaction", true),
            ("QueryStateAlpha1", false),
            ("GetActorState", false),
            ("ScheduleJobAlpha1", true),
            ("ScheduleJob", false),
            ("GetSecret", false),
            ("InvokeService", false),
            ("SubscribeTopicEventsAlpha1", false),
            ("NewOne", false),
        ] {
            assert_eq!(apis.allow_grpc(method), on, "{method}");
            assert!(Apis::default().allow_grpc(method), "{method}");
        }
    }
}
