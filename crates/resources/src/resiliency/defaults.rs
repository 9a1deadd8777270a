//! Policies that apply without a target that names them: Dapr's own retries, and the names under which a user
//! defines defaults.
//!
//! Source: Dapr documentation, "Default resiliency policies" and "Override default retry resiliency policies".

use super::{Backoff, Retry};
use std::time::Duration;

/// The three kinds of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyKind {
    /// `spec.policies.timeouts`.
    Timeout,
    /// `spec.policies.retries`.
    Retry,
    /// `spec.policies.circuitBreakers`.
    CircuitBreaker,
}

/// A call that no target is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultTarget {
    /// Invocation of an app or an HTTP endpoint.
    App,
    /// Invocation of an actor.
    Actor,
    /// An operation of a component.
    Component(ComponentBlock, Direction),
}

/// The building block that a component belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComponentBlock {
    /// `bindings.…`.
    Binding,
    /// `blob.…`, `file.…`, `oss.…`; not of Dapr.
    Blob,
    /// `configuration.…`.
    Configuration,
    /// `crypto.…`, `cryption.…`.
    Crypto,
    /// `email.…`; not of Dapr.
    Email,
    /// `lock.…`.
    Lock,
    /// `pubsub.…`.
    Pubsub,
    /// `secretstores.…`.
    Secretstore,
    /// `sequencer.…`; not of Dapr.
    Sequencer,
    /// `state.…`.
    Statestore,
}

/// Who calls whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The component calls the app: events, input bindings.
    Inbound,
    /// The app calls the component.
    Outbound,
}

/// The names under which a default for a call may be defined, the most specific first: for a read of a state store
/// `DefaultStatestoreComponentOutboundRetryPolicy`, `DefaultComponentOutboundRetryPolicy`,
/// `DefaultComponentRetryPolicy`, `DefaultRetryPolicy`. The first that is defined applies; each kind of policy has
/// its own search.
pub fn default_policy_names(target: DefaultTarget, kind: PolicyKind) -> impl Iterator<Item = String> {
    let levels = match target {
        DefaultTarget::App => vec!["App".to_owned()],
        DefaultTarget::Actor => vec!["Actor".to_owned()],
        DefaultTarget::Component(block, direction) => {
            let direction = direction.word();
            vec![
                format!("{}Component{direction}", block.word()),
                format!("Component{direction}"),
                "Component".to_owned(),
            ]
        }
    };
    levels.into_iter().chain([String::new()]).map(move |level| format!("Default{level}{}Policy", kind.word()))
}

/// The retries that Dapr has of its own, by name; a policy of the same name takes its place.
///
/// `DaprBuiltInServiceRetries` is for invocations that failed between hosts (gRPC codes 14 and 16 only),
/// `DaprBuiltInActorRetries`, `DaprBuiltInActorReminderRetries` and `DaprBuiltInActorNotFoundRetries` for actors,
/// and `DaprBuiltInInitializationRetries` for the start of components.
pub fn built_in_retry(name: &str) -> Option<Retry> {
    let second = Duration::from_secs(1);
    let (backoff, max_retries) = match name {
        "DaprBuiltInServiceRetries" | "DaprBuiltInActorRetries" => {
            (Backoff::Constant { wait: second }, Some(3))
        }
        "DaprBuiltInActorNotFoundRetries" => (Backoff::Constant { wait: second }, Some(5)),
        "DaprBuiltInActorReminderRetries" => (Backoff::exponential(60 * second), None),
        "DaprBuiltInInitializationRetries" => (
            Backoff::Exponential {
                initial: Duration::from_millis(500),
                multiplier: 1.5,
                randomization: 0.5,
                max: second,
                max_elapsed: 10 * second,
            },
            Some(3),
        ),
        _ => return None,
    };
    Some(Retry { backoff, max_retries, ..Retry::default() })
}

// === impl PolicyKind ===

impl PolicyKind {
    fn word(self) -> &'static str {
        match self {
            PolicyKind::Timeout => "Timeout",
            PolicyKind::Retry => "Retry",
            PolicyKind::CircuitBreaker => "CircuitBreaker",
        }
    }

    /// The field of a target that names such a policy.
    pub(super) fn field(self) -> &'static str {
        match self {
            PolicyKind::Timeout => "timeout",
            PolicyKind::Retry => "retry",
            PolicyKind::CircuitBreaker => "circuitBreaker",
        }
    }
}

// === impl ComponentBlock ===

impl ComponentBlock {
    fn word(self) -> &'static str {
        match self {
            ComponentBlock::Binding => "Binding",
            ComponentBlock::Configuration => "Configuration",
            ComponentBlock::Crypto => "Crypto",
            ComponentBlock::Blob => "Blob",
            ComponentBlock::Email => "Email",
            ComponentBlock::Lock => "Lock",
            ComponentBlock::Sequencer => "Sequencer",
            ComponentBlock::Pubsub => "Pubsub",
            ComponentBlock::Secretstore => "Secretstore",
            ComponentBlock::Statestore => "Statestore",
        }
    }
}

// === impl Direction ===

impl Direction {
    fn word(self) -> &'static str {
        match self {
            Direction::Inbound => "Inbound",
            Direction::Outbound => "Outbound",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_from_the_most_specific_to_the_least() {
        let cases = [
            (DefaultTarget::App, PolicyKind::Retry, "DefaultAppRetryPolicy DefaultRetryPolicy"),
            (DefaultTarget::Actor, PolicyKind::Timeout, "DefaultActorTimeoutPolicy DefaultTimeoutPolicy"),
            (
                DefaultTarget::Component(ComponentBlock::Statestore, Direction::Outbound),
                PolicyKind::Retry,
                "DefaultStatestoreComponentOutboundRetryPolicy DefaultComponentOutboundRetryPolicy \
                 DefaultComponentRetryPolicy DefaultRetryPolicy",
            ),
            (
                DefaultTarget::Component(ComponentBlock::Pubsub, Direction::Inbound),
                PolicyKind::CircuitBreaker,
                "DefaultPubsubComponentInboundCircuitBreakerPolicy DefaultComponentInboundCircuitBreakerPolicy \
                 DefaultComponentCircuitBreakerPolicy DefaultCircuitBreakerPolicy",
            ),
        ];
        for (target, kind, expected) in cases {
            let names: Vec<String> = default_policy_names(target, kind).collect();
            assert_eq!(names.join(" "), expected);
        }
    }

    #[test]
    fn built_in_retries_are_those_of_dapr() {
        let constant = |retries| Retry {
            backoff: Backoff::Constant { wait: Duration::from_secs(1) },
            max_retries: Some(retries),
            ..Retry::default()
        };
        assert_eq!(built_in_retry("DaprBuiltInServiceRetries"), Some(constant(3)));
        assert_eq!(built_in_retry("DaprBuiltInActorRetries"), Some(constant(3)));
        assert_eq!(built_in_retry("DaprBuiltInActorNotFoundRetries"), Some(constant(5)));
        let reminder = built_in_retry("DaprBuiltInActorReminderRetries").unwrap();
        assert_eq!(reminder.backoff, Backoff::exponential(Duration::from_secs(60)));
        assert_eq!(reminder.max_retries, None);
        let start = built_in_retry("DaprBuiltInInitializationRetries").unwrap();
        assert_eq!(start.max_retries, Some(3));
        assert_eq!(built_in_retry("DaprBuiltInOther"), None);
    }
}
