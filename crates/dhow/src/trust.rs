//! Which modules a host runs: flags and the manifest's `[trust]`, and what they come to.

use crate::Error;
use crate::verify::trust_store;
use clap::Args;
use dhow_api::opa::Opa;
use dhow_claims::policy::rego::Rego;
use dhow_host::{PerInvocation, Policies, PolicyServer, Trust};
use dhow_resources::manifest::TrustConfig;
use dhow_resources::units::parse_duration;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A policy has this long to answer.
const POLICY_TIMEOUT: Duration = Duration::from_secs(2);

/// Flags that every command with a host takes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Trust")]
pub(crate) struct TrustArgs {
    /// Run signed modules only if this trust store vouches for who signed them (see `dhow verify`)
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Run no module that is not signed
    #[arg(long)]
    require_signed: bool,
    /// A module whose token names no capabilities may do nothing; otherwise the manifest alone limits it
    #[arg(long)]
    require_claims: bool,
    /// Ask this policy in Rego, or all of a folder, whether an app may be loaded
    #[arg(long, value_name = "FILE|FOLDER")]
    policy: Option<PathBuf>,
    /// Ask the policy server (OPA) at this URL whether an app may be loaded
    #[arg(long, value_name = "URL", env = "OPA_URL", hide_env_values = true)]
    opa: Option<String>,
    /// Ask the policies about every invocation, too; an answer is kept for this long [default: 5s]
    #[arg(
        long,
        value_name = "DURATION",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "5s",
        value_parser = parse_duration
    )]
    policy_per_invocation: Option<Duration>,
    /// A policy that does not answer within this time says no [default: 2s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    policy_timeout: Option<Duration>,
}

/// A flag that was given to a command without modules.
pub(crate) fn not_for_programs(flag: &str) -> Error {
    Error::usage(format!("{flag} is for modules; a program outside is not one"))
}

// === impl TrustArgs ===

impl TrustArgs {
    /// Reads the files; flags win over the manifest.
    pub(crate) fn load(&self, manifest: &TrustConfig) -> Result<Trust, Error> {
        let config = self.over(manifest);
        let store = config.store.as_deref().map(trust_store).transpose()?.map(Arc::new);
        let timeout = config.policy_timeout.unwrap_or(POLICY_TIMEOUT);
        let rego = config.policy.as_deref().map(|path| Rego::read(path, timeout)).transpose();
        let rego = rego.map_err(|error| Error::new(error.to_string()))?;
        let server = match &config.opa {
            None => None,
            Some(url) => {
                let opa = Opa::new(url).map_err(|reason| Error::new(format!("policy server: {reason}")))?;
                Some(Arc::new(opa) as Arc<dyn PolicyServer>)
            }
        };
        let trust = |policies| Trust {
            store,
            require_signed: config.require_signed,
            require_claims: config.require_claims,
            policies,
        };
        let per_invocation = config.policy_per_invocation.map(|kept| PerInvocation { kept });
        if rego.is_none() && server.is_none() {
            return match per_invocation {
                Some(_) => Err(Error::usage(
                    "there is no policy that could be asked about every invocation; name one with --policy or --opa",
                )),
                None => Ok(trust(None)),
            };
        }
        Ok(trust(Some(Arc::new(Policies::new(rego, server, timeout, per_invocation)))))
    }

    /// Files whose change means that it is decided again.
    pub(crate) fn files(&self, manifest: &TrustConfig) -> Vec<PathBuf> {
        let TrustConfig { store, policy, .. } = self.over(manifest);
        let mut files: Vec<PathBuf> = store.into_iter().collect();
        if let Some(policy) = policy {
            // What cannot be read is told when it is loaded.
            files.extend(dhow_claims::policy::rego::files(&policy).unwrap_or_default());
        }
        files
    }

    /// A flag that was given, for a command that has no module to apply it to.
    pub(crate) fn any(&self) -> Option<&'static str> {
        let given = [
            ("--trust", self.trust.is_some()),
            ("--require-signed", self.require_signed),
            ("--require-claims", self.require_claims),
            ("--policy", self.policy.is_some()),
            // The environment may name a server for the other commands.
            ("--opa", self.opa.is_some() && self.opa != std::env::var("OPA_URL").ok()),
            ("--policy-per-invocation", self.policy_per_invocation.is_some()),
            ("--policy-timeout", self.policy_timeout.is_some()),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(flag, _)| flag)
    }

    fn over(&self, manifest: &TrustConfig) -> TrustConfig {
        let own = self.clone();
        TrustConfig {
            store: own.trust.or_else(|| manifest.store.clone()),
            require_signed: own.require_signed || manifest.require_signed,
            require_claims: own.require_claims || manifest.require_claims,
            policy: own.policy.or_else(|| manifest.policy.clone()),
            opa: own.opa.filter(|url| !url.is_empty()).or_else(|| manifest.opa.clone()),
            policy_timeout: own.policy_timeout.or(manifest.policy_timeout),
            policy_per_invocation: own.policy_per_invocation.or(manifest.policy_per_invocation),
        }
    }
}
