//! Redis: state, pub/sub, locks, configuration and a binding on one server (6.2 or later).
//!
//! What is stored has the form that Dapr gives it, so that both may use one database. This file reads what all
//! five have in common, the way to the server, from Dapr's metadata fields.
//!
//! | file | subject |
//! |---|---|
//! | `connection` | one connection: TCP, TLS, authentication |
//! | `pool` | a few connections that come back by themselves, and requests over them |
//! | `receivers` | who receives in the background |
//! | `error` | what a failed request means to the caller |
//! | `state` | `state.redis` |
//! | `pubsub` | `pubsub.redis`, with `subscription` |
//! | `lock` | `lock.redis` |
//! | `configuration` | `configuration.redis`, with `watch` |
//! | `sequencer` | `sequencer.redis` |
//! | `binding` | `bindings.redis` |

pub(crate) mod binding;
pub(crate) mod configuration;
mod connection;
mod error;
pub(crate) mod lock;
mod pool;
pub(crate) mod pubsub;
mod receivers;
pub(crate) mod sequencer;
pub(crate) mod state;
mod subscription;
mod watch;

use crate::redis::connection::Connector;
use crate::redis::pool::Pool;
use crate::registry::{ComponentSpec, OpenError};
use crate::tls::Tls;
use ::redis::RedisConnectionInfo;
use std::time::Duration;

/// The metadata fields of the way to the server, with those of one provider behind them.
macro_rules! fields {
    ($($own:literal),*) => {
        &[
            "redisHost", "redisPort", "redisUsername", "redisPassword", "redisDB", "redisType",
            "enableTLS", "insecureSkipTLSVerify", "caCert", "clientCert", "clientKey",
            "dialTimeout", "readTimeout", "writeTimeout", "poolSize", "poolTimeout", "maxConnAge",
            "minIdleConns", "idleCheckFrequency", "idleTimeout",
            "redisMaxRetries", "redisMinRetryInterval", "redisMaxRetryInterval", "maxRetries",
            "maxRetryBackoff", "failover", "sentinelMasterName", "sentinelUsername", "sentinelPassword",
            "useEntraID", "useOIDC",
            $($own),*
        ]
    };
}
pub(crate) use fields;

/// Fields of Dapr's that have nothing to act upon: connections here carry many requests at once and last, and
/// messages in hand are kept without being asked to.
const WITHOUT_EFFECT: &[&str] = &[
    "poolTimeout",
    "maxConnAge",
    "minIdleConns",
    "idleCheckFrequency",
    "idleTimeout",
    "maxRetryBackoff",
    "entryKeepAliveInterval",
];

/// What `-1`, "no timeout", stands for: a request may take long, but never forever.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(300);

const DEFAULT_PORT: u16 = 6379;

/// Connections of one component. Each carries many requests at once; a second one is for those that would
/// wait behind a large value.
const DEFAULT_POOL: usize = 2;

/// Most connections of one component.
const LARGEST_POOL: usize = 64;

/// How a component reaches its server.
struct Options {
    host: String,
    port: u16,
    /// Database, user and password.
    login: RedisConnectionInfo,
    tls: Option<Tls>,
    /// For a connection to be made and ready.
    dial_timeout: Duration,
    /// For the answer to a request.
    response_timeout: Duration,
    /// How often a read is repeated that lost its connection.
    retries: u32,
    /// Waits between such repetitions: the first one and the longest.
    retry_delay: (Duration, Duration),
    pool_size: usize,
}

/// Reads the component's metadata and connects.
async fn open(component: &ComponentSpec) -> Result<Pool, OpenError> {
    let options = Options::read(component)?;
    // The certificates of authorities are read from disk.
    let connector = tokio::task::spawn_blocking(|| Connector::new(options)).await;
    let connector = connector.unwrap_or_else(|error| Err(error.to_string()));
    let connector = connector.map_err(|reason| component.backend(reason))?;
    Pool::open(connector).await.map_err(|reason| component.backend(reason))
}

/// A duration such as `500ms`; unlike elsewhere, a bare number counts milliseconds. `-1`: [`LONGEST_TIMEOUT`].
fn duration(component: &ComponentSpec, name: &str) -> Result<Option<Duration>, OpenError> {
    let milliseconds = component.field(&[name]).and_then(|text| text.trim().parse::<i64>().ok());
    match milliseconds {
        Some(milliseconds) => {
            Ok(Some(u64::try_from(milliseconds).map_or(LONGEST_TIMEOUT, Duration::from_millis)))
        }
        None => component.duration(&[name]),
    }
}

/// A whole number within bounds.
fn number(
    component: &ComponentSpec,
    names: &[&str],
    range: std::ops::RangeInclusive<i64>,
    expected: &'static str,
) -> Result<Option<i64>, OpenError> {
    let Some(text) = component.field(names) else { return Ok(None) };
    match text.trim().parse::<i64>() {
        Ok(number) if range.contains(&number) => Ok(Some(number)),
        _ => Err(component.invalid(names, expected)),
    }
}

// === impl Options ===

impl Options {
    fn read(component: &ComponentSpec) -> Result<Options, OpenError> {
        Options::refuse(component)?;
        for field in WITHOUT_EFFECT.iter().filter(|field| component.field(&[field]).is_some()) {
            tracing::warn!(component = component.name, field, "the metadata field has no effect here");
        }
        let (host, port) = address(component)?;
        let mut login =
            RedisConnectionInfo::default().set_lib_name("dhow", env!("CARGO_PKG_VERSION")).set_db(
                number(component, &["redisDB"], 0..=i64::from(i32::MAX), "a database's number")?.unwrap_or(0),
            );
        if let Some(username) = component.field(&["redisUsername"]) {
            login = login.set_username(username);
        }
        if let Some(password) = component.field(&["redisPassword"]) {
            login = login.set_password(password);
        }
        let bounded = |timeout: Duration| timeout.clamp(Duration::from_millis(1), LONGEST_TIMEOUT);
        let timeout = |name: &str, default: Duration| -> Result<Duration, OpenError> {
            // Zero is go-redis' way to ask for the default.
            let given = duration(component, name)?.filter(|timeout| !timeout.is_zero());
            Ok(bounded(given.unwrap_or(default)))
        };
        let read_timeout = timeout("readTimeout", Duration::from_secs(3))?;
        let retries = number(
            component,
            &["redisMaxRetries", "maxRetries"],
            -1..=100,
            "a number of retries from 0 to 100, or -1 for none",
        )?;
        let first = timeout("redisMinRetryInterval", Duration::from_millis(8))?;
        let longest = timeout("redisMaxRetryInterval", Duration::from_millis(512))?;
        let pool_size = number(component, &["poolSize"], 0..=i64::MAX, "a number of connections")?;
        Ok(Options {
            host,
            port,
            login,
            tls: tls(component)?,
            dial_timeout: timeout("dialTimeout", Duration::from_secs(5))?,
            // Writing and reading happen within one wait for the answer.
            response_timeout: read_timeout.max(timeout("writeTimeout", read_timeout)?),
            retries: retries.and_then(|retries| u32::try_from(retries).ok()).unwrap_or(match retries {
                Some(_) => 0,
                None => 3,
            }),
            retry_delay: (first.min(longest), longest),
            pool_size: match pool_size.and_then(|size| usize::try_from(size).ok()) {
                None | Some(0) => DEFAULT_POOL,
                Some(size) => size.min(LARGEST_POOL),
            },
        })
    }

    /// What Dapr's component can do and this one cannot.
    fn refuse(component: &ComponentSpec) -> Result<(), OpenError> {
        let kind = component.field(&["redisType"]).unwrap_or("node");
        if !kind.eq_ignore_ascii_case("node") {
            return Err(component.invalid(&["redisType"], "node: clusters are not supported"));
        }
        if component.truthy(&["failover"]) {
            return Err(component.invalid(
                &["failover"],
                "false: Sentinel is not supported; give the master's address as redisHost",
            ));
        }
        for field in ["useEntraID", "useOIDC"] {
            if component.truthy(&[field]) {
                return Err(component.invalid(&[field], "false: use redisUsername and redisPassword"));
            }
        }
        Ok(())
    }
}

fn tls(component: &ComponentSpec) -> Result<Option<Tls>, OpenError> {
    if !component.truthy(&["enableTLS"]) {
        return Ok(None);
    }
    Ok(Some(Tls { insecure: component.truthy(&["insecureSkipTLSVerify"]), ..Tls::of(component)? }))
}

/// `redisHost` with or without a port, and `redisPort`, which may not contradict it.
fn address(component: &ComponentSpec) -> Result<(String, u16), OpenError> {
    const HOST: &[&str] = &["redisHost"];
    const EXPECTED: &str = "the server's host and port, such as localhost:6379";
    let Some(text) = component.field(HOST) else { return Err(component.invalid(HOST, EXPECTED)) };
    if text.contains(',') {
        return Err(component.invalid(HOST, "one server: clusters are not supported"));
    }
    let given = number(component, &["redisPort"], 1..=65_535, "a port from 1 to 65535")?;
    let given = given.and_then(|port| u16::try_from(port).ok());
    let Some((host, port)) = split(text.trim()) else { return Err(component.invalid(HOST, EXPECTED)) };
    match (port, given) {
        (Some(one), Some(other)) if one != other => {
            Err(component.invalid(&["redisPort"], "the port in redisHost, or left out"))
        }
        (port, given) => Ok((host.to_owned(), port.or(given).unwrap_or(DEFAULT_PORT))),
    }
}

/// Host and port of `host`, `host:port`, `[::1]`, `[::1]:port` or `::1`.
fn split(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None if text.matches(':').count() > 1 => (text, None),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port
        .map(|port| port.parse::<u16>().ok().filter(|port| *port > 0))
        .map_or(Some(None), |p| p.map(Some))?;
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(metadata: &[(&str, &str)]) -> ComponentSpec {
        ComponentSpec {
            name: "store".to_owned(),
            component_type: "state.redis".to_owned(),
            version: "v1".to_owned(),
            metadata: metadata.iter().map(|(f, v)| ((*f).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn addresses() {
        for (host, port, expected) in [
            ("localhost:6380", None, Some(("localhost", 6380))),
            ("localhost", None, Some(("localhost", 6379))),
            ("localhost", Some("7000"), Some(("localhost", 7000))),
            ("localhost:7000", Some("7000"), Some(("localhost", 7000))),
            ("localhost:7000", Some("7001"), None),
            ("10.0.0.1:1", None, Some(("10.0.0.1", 1))),
            ("[::1]:7000", None, Some(("::1", 7000))),
            ("[::1]", None, Some(("::1", 6379))),
            ("::1", Some("7000"), Some(("::1", 7000))),
            ("", None, None),
            (":6379", None, None),
            ("host:0", None, None),
            ("host:port", None, None),
            ("host:99999", None, None),
            ("[::1", None, None),
            ("[::1]x", None, None),
            ("a:1,b:2", None, None),
            ("localhost", Some("0"), None),
        ] {
            let mut metadata = vec![("redisHost", host)];
            metadata.extend(port.map(|port| ("redisPort", port)));
            let found = address(&component(&metadata)).ok();
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(found, expected, "{host:?} {port:?}");
        }
    }

    #[test]
    fn timeouts_and_retries() {
        let read = |metadata: &[(&str, &str)]| {
            Options::read(&component(&[&[("redisHost", "h")], metadata].concat())).unwrap()
        };
        let options = read(&[]);
        assert_eq!(options.dial_timeout, Duration::from_secs(5));
        assert_eq!(options.response_timeout, Duration::from_secs(3));
        assert_eq!((options.retries, options.pool_size), (3, DEFAULT_POOL));
        let options = read(&[
            ("dialTimeout", "250"),
            ("readTimeout", "1s"),
            ("writeTimeout", "2s"),
            ("maxRetries", "-1"),
            ("redisMinRetryInterval", "5s"),
            ("poolSize", "1000"),
        ]);
        assert_eq!(options.dial_timeout, Duration::from_millis(250));
        assert_eq!(options.response_timeout, Duration::from_secs(2));
        assert_eq!((options.retries, options.pool_size), (0, LARGEST_POOL));
        assert_eq!(options.retry_delay, (Duration::from_millis(512), Duration::from_millis(512)));
        assert_eq!(read(&[("readTimeout", "-1")]).response_timeout, LONGEST_TIMEOUT);
        assert_eq!(read(&[("readTimeout", "0")]).response_timeout, Duration::from_secs(3));
    }

    #[test]
    fn what_cannot_be_done_is_refused_without_showing_values() {
        for (field, value, named) in [
            ("redisType", "cluster", "redisType"),
            ("failover", "true", "failover"),
            ("useEntraID", "true", "useEntraID"),
            ("redisDB", "hunter2", "redisDB"),
            ("dialTimeout", "hunter2", "dialTimeout"),
            ("maxRetries", "hunter2", "redisMaxRetries"),
            ("poolSize", "-7", "poolSize"),
        ] {
            let component = component(&[("redisHost", "h"), ("redisPassword", "hunter2"), (field, value)]);
            let error = Options::read(&component).err().unwrap();
            assert!(
                matches!(&error, OpenError::InvalidMetadata { field, .. } if field == named),
                "{field}: {error}"
            );
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
