//! Dapr's metadata fields of all PostgreSQL components.

use super::connection::Connector;
use super::connection_string;
use super::database::Database;
use crate::metadata::ComponentSpec;
use crate::pool::{Limits, Pool};
use crate::registry::OpenError;
use std::time::Duration;

/// Fields that every component of PostgreSQL reads.
pub(super) const FIELDS: [&str; 15] = [
    "connectionString",
    "url",
    "host",
    "hostaddr",
    "port",
    "database",
    "user",
    "password",
    "sslRootCert",
    "timeout",
    "timeoutInSeconds",
    "maxConns",
    "connectionMaxIdleTime",
    "connMaxIdleTime",
    "queryExecMode",
];

const CONNECTION_STRING: &[&str] = &["connectionString", "url"];

/// Fields that stand for keywords of the connection string.
const KEYWORDS: [(&str, &str); 7] = [
    ("host", "host"),
    ("hostaddr", "hostaddr"),
    ("port", "port"),
    ("database", "dbname"),
    ("user", "user"),
    ("password", "password"),
    ("sslRootCert", "sslrootcert"),
];

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);

/// As Dapr's client has it.
const DEFAULT_IDLE: Duration = Duration::from_secs(30 * 60);

const MAX_CONNECTIONS: usize = 1024;

/// The database that the component describes. Nothing is connected yet.
pub(super) fn database(component: &ComponentSpec) -> Result<Database, OpenError> {
    for field in ["useAzureAD", "useAWSIAM"] {
        if component.truthy(&[field]) {
            return Err(component.invalid(&[field], "false: log in with a password or a certificate"));
        }
    }
    let text = component.field(CONNECTION_STRING).unwrap_or("");
    let overrides = KEYWORDS
        .iter()
        .filter_map(|(field, keyword)| Some(((*keyword).to_owned(), component.field(&[field])?.to_owned())));
    let overrides: Vec<_> = overrides.collect();
    if text.is_empty() && overrides.is_empty() {
        return Err(component.invalid(CONNECTION_STRING, "given: where the server is, and the login"));
    }
    let failed = |reason| failed(component, reason);
    let settings = connection_string::read(text, overrides);
    let settings = settings.map_err(|reason| failed(format!("metadata field connectionString: {reason}")))?;
    let timeout = component.duration(&["timeout", "timeoutInSeconds"])?.unwrap_or(DEFAULT_TIMEOUT);
    if timeout < Duration::from_secs(1) {
        return Err(component.invalid(&["timeout"], "at least 1s"));
    }
    let connections = match component.field(&["maxConns"]).map(str::parse::<i64>) {
        None => None,
        // Dapr's words for the default.
        Some(Ok(..=0)) => None,
        Some(Ok(number)) => usize::try_from(number).ok(),
        Some(Err(_)) => return Err(component.invalid(&["maxConns"], "a number")),
    };
    let usual = || std::thread::available_parallelism().map_or(4, |cores| cores.get().max(4));
    let connections = connections.or(settings.connections).unwrap_or_else(usual).min(MAX_CONNECTIONS);
    let idle = component.duration(&["connectionMaxIdleTime", "connMaxIdleTime"])?;
    let idle = idle.filter(|idle| !idle.is_zero()).unwrap_or(DEFAULT_IDLE);
    let connector = Connector::new(settings).map_err(failed)?;
    Ok(Database { pool: Pool::new(connector, Limits { connections, idle }), timeout })
}

/// A component that did not open.
pub(super) fn failed(component: &ComponentSpec, reason: impl ToString) -> OpenError {
    OpenError::Backend { component: component.name.clone(), reason: reason.to_string() }
}
