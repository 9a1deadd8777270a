//! libpq's connection strings: `host=… user=…`, or `postgres://user@host/database`.
//!
//! Source: PostgreSQL documentation, section 34.1.1, "Connection Strings"; the `pool_` keywords are those of
//! pgx, which Dapr uses. No error holds a value.

use std::borrow::Cow;
use std::time::Duration;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode, TargetSessionAttrs};

/// The server's port where none is given.
const PORT: u16 = 5432;

/// Notices a server that is gone without a word in about a minute.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What a connection string says.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Where the server is, and who asks. Its `Debug` leaves the password out.
    pub(super) config: Config,
    pub(super) tls: TlsSettings,
    /// `pool_max_conns`
    pub(super) connections: Option<usize>,
}

/// The `ssl` keywords.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TlsSettings {
    pub(super) verify: Verify,
    /// A file with the authorities' certificates; `system` or none: those of the system.
    pub(super) root_certificates: Option<String>,
    /// Files with the client's certificate and key.
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
}

/// What is verified of the server's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Verify {
    /// Nothing: the connection is private, but perhaps not with whom one thinks.
    #[default]
    Nothing,
    /// That a known authority signed it.
    Authority,
    /// That, and that it is for this host.
    Name,
}

type Pairs = Vec<(String, String)>;

/// Reads a connection string; each of `overrides` replaces the keyword of that name.
pub(super) fn read(text: &str, overrides: Pairs) -> Result<Settings, String> {
    let mut pairs = if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        from_url(text)?
    } else {
        from_keywords(text)?
    };
    for (keyword, _) in &mut pairs {
        if keyword == "database" {
            "dbname".clone_into(keyword);
        }
    }
    pairs.retain(|(keyword, _)| !overrides.iter().any(|(name, _)| name == keyword));
    pairs.extend(overrides);
    // The last one of a name counts.
    let mut seen = Vec::new();
    pairs.reverse();
    pairs.retain(|(keyword, value)| {
        let new = !value.is_empty() && !seen.contains(keyword);
        seen.push(keyword.clone());
        new
    });
    pairs.reverse();
    settings(&pairs)
}

fn settings(pairs: &[(String, String)]) -> Result<Settings, String> {
    let value =
        |name: &str| pairs.iter().find(|(keyword, _)| keyword == name).map(|(_, value)| value.as_str());
    let mut config = Config::new();
    config.application_name("dhow").keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE / 3);
    config.keepalives_retries(3);
    let mut connections = None;
    let mut options = String::new();
    for (keyword, value) in pairs {
        let wrong = |expected: &str| format!("its keyword {keyword} must be {expected}");
        match keyword.as_str() {
            "host" => {
                for host in value.split(',') {
                    config.host(host);
                }
            }
            "hostaddr" => {
                for address in value.split(',') {
                    config.hostaddr(address.parse().map_err(|_| wrong("an IP address"))?);
                }
            }
            "port" => {
                for port in value.split(',') {
                    let port = if port.is_empty() { Ok(PORT) } else { port.parse() };
                    config.port(port.map_err(|_| wrong("a number up to 65535"))?);
                }
            }
            "user" => {
                config.user(value);
            }
            "password" => {
                config.password(value);
            }
            "dbname" => {
                config.dbname(value);
            }
            "application_name" | "fallback_application_name" => {
                config.application_name(value);
            }
            "connect_timeout" => {
                let seconds: i64 = value.parse().map_err(|_| wrong("a number of seconds"))?;
                if let Some(seconds) = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0) {
                    config.connect_timeout(Duration::from_secs(seconds));
                }
            }
            "target_session_attrs" => {
                config.target_session_attrs(match value.as_str() {
                    "any" | "prefer-standby" => TargetSessionAttrs::Any,
                    "read-write" | "primary" => TargetSessionAttrs::ReadWrite,
                    _ => return Err(wrong("any, read-write, primary or prefer-standby")),
                });
            }
            "load_balance_hosts" => {
                config.load_balance_hosts(match value.as_str() {
                    "disable" => LoadBalanceHosts::Disable,
                    "random" => LoadBalanceHosts::Random,
                    _ => return Err(wrong("disable or random")),
                });
            }
            "options" => push_option(&mut options, value),
            "pool_max_conns" => {
                let number = value.parse().ok().filter(|number| *number > 0);
                connections = Some(number.ok_or_else(|| wrong("a positive number"))?);
            }
            "sslmode" | "sslrootcert" | "sslcert" | "sslkey" => {}
            "service" | "servicefile" | "passfile" | "sslpassword" | "sslcrl" | "krbsrvname" | "gsslib" => {
                return Err(format!("its keyword {keyword} is not supported"));
            }
            "client_encoding"
            | "sslsni"
            | "sslcompression"
            | "gssencmode"
            | "channel_binding"
            | "min_protocol_version"
            | "max_protocol_version" => tracing::debug!(keyword, "ignored"),
            other if other.starts_with("pool_") || other.starts_with("keepalives") => {
                tracing::debug!(keyword, "ignored");
            }
            "statement_cache_capacity" | "description_cache_capacity" | "default_query_exec_mode" => {}
            // As pgx does: the name of one of the server's parameters.
            parameter => {
                if !parameter.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
                {
                    return Err("it holds a keyword that is no name".to_owned());
                }
                let escaped = value.replace('\\', "\\\\").replace(' ', "\\ ");
                push_option(&mut options, &format!("-c {parameter}={escaped}"));
            }
        }
    }
    if !options.is_empty() {
        config.options(options);
    }
    if config.get_hosts().is_empty() {
        // Certificates may be for addresses, too.
        let addresses: Vec<String> = config.get_hostaddrs().iter().map(ToString::to_string).collect();
        for address in &addresses {
            config.host(address);
        }
        if addresses.is_empty() {
            config.host("localhost");
        }
    }
    if config.get_user().is_none() {
        return Err("it names no user".to_owned());
    }
    let file = |name: &str| value(name).map(str::to_owned);
    let (root_certificates, certificate, key) = (file("sslrootcert"), file("sslcert"), file("sslkey"));
    if certificate.is_some() != key.is_some() {
        return Err("its keywords sslcert and sslkey must be given together".to_owned());
    }
    let (mode, verify) = match value("sslmode").unwrap_or("prefer") {
        "disable" => (SslMode::Disable, Verify::Nothing),
        "allow" | "prefer" => (SslMode::Prefer, Verify::Nothing),
        // As libpq: who names an authority wants it to count.
        "require" if root_certificates.is_some() => (SslMode::Require, Verify::Authority),
        "require" => (SslMode::Require, Verify::Nothing),
        "verify-ca" => (SslMode::Require, Verify::Authority),
        "verify-full" => (SslMode::Require, Verify::Name),
        _ => {
            let expected = "disable, allow, prefer, require, verify-ca or verify-full";
            return Err(format!("its keyword sslmode must be {expected}"));
        }
    };
    // As libpq: a socket is private without TLS.
    let sockets = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)))
        && config.get_hostaddrs().is_empty();
    config.ssl_mode(if sockets { SslMode::Disable } else { mode });
    let tls = TlsSettings { verify, root_certificates, certificate, key };
    Ok(Settings { config, tls, connections })
}

fn push_option(options: &mut String, option: &str) {
    if !options.is_empty() {
        options.push(' ');
    }
    options.push_str(option);
}

fn from_keywords(text: &str) -> Result<Pairs, String> {
    let wrong = || "it must be keyword=value pairs, or start with postgres://".to_owned();
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (keyword, value) = rest.split_once('=').ok_or_else(wrong)?;
        let keyword = keyword.trim();
        if keyword.is_empty() || keyword.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let value = value.trim_start();
        let quoted = value.strip_prefix('\'');
        let mut characters = quoted.unwrap_or(value).chars();
        let mut read = String::new();
        loop {
            match characters.next() {
                Some('\\') => read.push(characters.next().ok_or_else(wrong)?),
                Some('\'') if quoted.is_some() => break,
                Some(character) if quoted.is_none() && character.is_whitespace() => break,
                Some(character) => read.push(character),
                None if quoted.is_some() => return Err("a quote is not closed in it".to_owned()),
                None => break,
            }
        }
        pairs.push((keyword.to_owned(), read));
        rest = characters.as_str().trim_start();
    }
    Ok(pairs)
}

fn from_url(url: &str) -> Result<Pairs, String> {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let mut pairs = Pairs::new();
    let mut add = |keyword: &str, value: &str| {
        pairs.push((decode(keyword)?.into_owned(), decode(value)?.into_owned()));
        Ok::<_, String>(())
    };
    add("user", user)?;
    add("password", password)?;
    add("dbname", database)?;
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',').filter(|_| !hosts.is_empty()) {
        // [::1]:5432
        let (name, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            Some((name, port)) => (name, port.strip_prefix(':').unwrap_or("")),
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(name);
        ports.push(port);
    }
    add("host", &names.join(","))?;
    if ports.iter().any(|port| !port.is_empty()) {
        add("port", &ports.join(","))?;
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (keyword, value) = pair.split_once('=').unwrap_or((pair, ""));
        add(keyword, value)?;
    }
    Ok(pairs)
}

fn decode(text: &str) -> Result<Cow<'_, str>, String> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    let mut next = || {
        Some(match bytes.next()? {
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit(bytes.next()), digit(bytes.next()));
                high.zip(low).and_then(|(high, low)| u8::try_from(high * 16 + low).ok())
            }
            byte => Some(byte),
        })
    };
    let wrong = || "in a URL % must be followed by two hexadecimal digits, % itself being %25".to_owned();
    while let Some(byte) = next() {
        decoded.push(byte.ok_or_else(wrong)?);
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn read(text: &str) -> Settings {
        super::read(text, Vec::new()).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn both_forms_say_the_same() {
        for text in [
            "host=db.example port=5433 user=anna password='a b\\'c%' dbname=shop sslmode=verify-full",
            "  host = db.example\tuser=anna password = a\\ b\\'c% port=5433 database=shop sslmode = verify-full ",
            "postgres://anna:a%20b'c%25@db.example:5433/shop?sslmode=verify-full",
            "postgresql://db.example:5433/shop?user=anna&password=a%20b'c%25&sslmode=verify-full",
        ] {
            let Settings { config, tls, .. } = read(text);
            assert_eq!(config.get_hosts(), [Host::Tcp("db.example".to_owned())], "{text}");
            assert_eq!((config.get_ports(), config.get_user()), (&[5433][..], Some("anna")), "{text}");
            assert_eq!((config.get_password(), config.get_dbname()), (Some(&b"a b'c%"[..]), Some("shop")));
            assert_eq!((config.get_ssl_mode(), tls.verify), (SslMode::Require, Verify::Name), "{text}");
        }
    }

    #[test]
    fn hosts() {
        let host = |name: &str| Host::Tcp(name.to_owned());
        for (text, hosts, ports) in [
            ("user=a", vec![host("localhost")], vec![]),
            ("user=a host=x,y port=1,", vec![host("x"), host("y")], vec![1, 5432]),
            ("postgres://a@[::1]:7,y/", vec![host("::1"), host("y")], vec![7, 5432]),
            ("user=a host=/run", vec![Host::Unix(PathBuf::from("/run"))], vec![]),
            ("user=a hostaddr=::1,127.0.0.1", vec![host("::1"), host("127.0.0.1")], vec![]),
            ("user=a hostaddr=::1 host=x", vec![host("x")], vec![]),
        ] {
            let config = read(text).config;
            assert_eq!((config.get_hosts(), config.get_ports()), (&hosts[..], &ports[..]), "{text}");
        }
    }

    #[test]
    fn other_keywords_are_parameters_of_the_server() {
        let text = "user=a search_path='x, y' pool_max_conns=7 pool_min_conns=1 statement_timeout=5s";
        let settings = read(text);
        assert_eq!(settings.config.get_options(), Some("-c search_path=x,\\ y -c statement_timeout=5s"));
        assert_eq!(settings.connections, Some(7));
    }

    #[test]
    fn fields_of_their_own_win() {
        let overrides =
            vec![("password".to_owned(), "new".to_owned()), ("dbname".to_owned(), "b".to_owned())];
        let config = super::read("postgres://u:old@h/a", overrides).unwrap().config;
        assert_eq!((config.get_password(), config.get_dbname()), (Some(&b"new"[..]), Some("b")));
    }

    #[test]
    fn tls_modes() {
        for (text, mode, verify) in [
            ("", SslMode::Prefer, Verify::Nothing),
            ("sslmode=disable", SslMode::Disable, Verify::Nothing),
            ("sslmode=require", SslMode::Require, Verify::Nothing),
            ("sslmode=require sslrootcert=ca.pem", SslMode::Require, Verify::Authority),
            ("sslmode=verify-ca", SslMode::Require, Verify::Authority),
            ("sslmode=require host=/run", SslMode::Disable, Verify::Nothing),
            ("sslmode=require host=/run,x", SslMode::Require, Verify::Nothing),
            ("sslmode=require host=/run hostaddr=::1", SslMode::Require, Verify::Nothing),
        ] {
            let settings = read(&format!("user=a {text}"));
            assert_eq!((settings.config.get_ssl_mode(), settings.tls.verify), (mode, verify), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named_without_their_values() {
        for (text, expected) in [
            ("", "user"),
            ("user", "keyword=value"),
            ("user=a password='hunter2", "quote"),
            ("user=a port=hunter2", "port"),
            ("user=a sslmode=hunter2", "sslmode"),
            ("user=a sslcert=hunter2", "sslkey"),
            ("user=a service=hunter2", "service"),
            ("user=a hunter2 hunter2=1", "keyword=value"),
            ("user=a hunter-2=hunter2", "no name"),
            ("postgres://a:%zz@h", "%25"),
            ("postgres://a:%e4@h", "%25"),
            ("postgres://a:%4@h", "%25"),
        ] {
            let error = super::read(text, Vec::new()).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{text}: {error}");
        }
        let debug = format!("{:?}", read("user=a password=hunter2"));
        assert!(!debug.contains("hunter2"), "{debug}");
    }
}
