//! Data source names: `user:password@tcp(host:port)/database?tls=true`.
//!
//! Source: go-sql-driver/mysql, README, "DSN (Data Source Name)". No error holds a value.

use mysql_async::{OptsBuilder, SslOpts};
use std::path::PathBuf;
use std::time::Duration;

const PORT: u16 = 3306;

/// Notices a server that is gone without a word.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What a data source name says. Its `Debug` leaves the password out.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Dsn {
    user: String,
    password: String,
    address: Address,
    tls: Tls,
    cleartext: bool,
    /// The database; empty: none.
    pub(super) database: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Tcp(String, u16),
    Unix(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    Off,
    /// The server is verified.
    On,
    /// The server is not verified.
    Unverified,
    /// The server is not verified, and need not have TLS.
    Preferred,
    /// The server is verified by the authorities in the component's `pemPath`.
    Own,
}

// === impl Dsn ===

impl Dsn {
    pub(super) fn read(text: &str) -> Result<Dsn, String> {
        let form = || "it must have the form user:password@tcp(host:port)/database".to_owned();
        // The password may hold anything, the rest no slash but in its parameters and in a socket's path.
        let (head, query) = match text.rfind(")/").map(|place| place + 1).or_else(|| text.rfind('/')) {
            Some(slash) => (&text[..slash], &text[slash + 1..]),
            None => return Err(form()),
        };
        let (database, query) = query.split_once('?').unwrap_or((query, ""));
        let (login, network) = head.rsplit_once('@').unwrap_or(("", head));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let address = match network.split_once('(') {
            Some(("tcp" | "tcp4" | "tcp6", address)) => tcp(address.strip_suffix(')').ok_or_else(form)?)?,
            Some(("unix", path)) => Address::Unix(path.strip_suffix(')').ok_or_else(form)?.to_owned()),
            None if network.is_empty() || network == "tcp" => Address::Tcp("127.0.0.1".to_owned(), PORT),
            _ => return Err("its network must be tcp or unix".to_owned()),
        };
        let (user, password) = (user.to_owned(), password.to_owned());
        let database = database.to_owned();
        let mut dsn = Dsn { user, password, address, tls: Tls::Off, cleartext: false, database };
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match (name, value) {
                ("tls", "false") => {}
                ("tls", "true") => dsn.tls = Tls::On,
                ("tls", "skip-verify") => dsn.tls = Tls::Unverified,
                ("tls", "preferred") => dsn.tls = Tls::Preferred,
                ("tls", "custom") => dsn.tls = Tls::Own,
                ("tls", _) => {
                    let expected = "true, false, skip-verify, preferred or custom";
                    return Err(format!("its parameter tls must be {expected}"));
                }
                ("allowCleartextPasswords", value) => dsn.cleartext = value == "true",
                // Matters of Go's driver, or the same here in any case.
                (
                    "allowNativePasswords"
                    | "checkConnLiveness"
                    | "charset"
                    | "collation"
                    | "interpolateParams"
                    | "loc"
                    | "maxAllowedPacket"
                    | "parseTime"
                    | "readTimeout"
                    | "timeout"
                    | "writeTimeout",
                    _,
                ) => {}
                (name, _) => tracing::warn!(parameter = name, "the data source name's parameter is ignored"),
            }
        }
        Ok(dsn)
    }

    /// For the client. `pem` is the component's file of authorities.
    pub(super) fn options(&self, pem: Option<&str>) -> Result<OptsBuilder, String> {
        let tls = match (self.tls, pem) {
            (Tls::Off, _) => None,
            (Tls::Unverified | Tls::Preferred, _) => Some(
                SslOpts::default()
                    .with_danger_accept_invalid_certs(true)
                    .with_danger_skip_domain_validation(true),
            ),
            (Tls::Own, None) => return Err("tls=custom needs the metadata field pemPath".to_owned()),
            (Tls::On, None) => Some(SslOpts::default()),
            (Tls::Own | Tls::On, Some(pem)) => Some(
                SslOpts::default()
                    .with_root_certs(vec![PathBuf::from(pem).into()])
                    .with_disable_built_in_roots(true),
            ),
        };
        let options = OptsBuilder::default()
            .user(Some(self.user.clone()))
            .pass(Some(self.password.clone()))
            .db_name(Some(self.database.clone()).filter(|database| !database.is_empty()))
            .prefer_socket(false)
            .tcp_keepalive(Some(KEEPALIVE))
            .enable_cleartext_plugin(self.cleartext)
            .ssl_opts(tls);
        Ok(match &self.address {
            Address::Tcp(host, port) => options.ip_or_hostname(host).tcp_port(*port),
            Address::Unix(path) => options.socket(Some(path.as_str())),
        })
    }

    /// Whether a server without TLS will do, although there are options for TLS.
    pub(super) fn prefers_tls(&self) -> bool {
        self.tls == Tls::Preferred
    }

    /// The server, for messages.
    pub(super) fn server(&self) -> String {
        match &self.address {
            Address::Tcp(host, port) => format!("MySQL at {host}:{port}"),
            Address::Unix(path) => format!("MySQL at {path}"),
        }
    }
}

impl std::fmt::Debug for Dsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Dsn { user, password: _, address, tls, cleartext, database } = self;
        f.debug_struct("Dsn")
            .field("user", user)
            .field("address", address)
            .field("tls", tls)
            .field("cleartext", cleartext)
            .field("database", database)
            .finish_non_exhaustive()
    }
}

fn tcp(address: &str) -> Result<Address, String> {
    let (host, port) = match address.strip_prefix('[').and_then(|address| address.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(PORT), str::parse);
    let port = port.map_err(|_| "its port must be a number up to 65535".to_owned())?;
    Ok(Address::Tcp(if host.is_empty() { "127.0.0.1" } else { host }.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp(host.to_owned(), port)
    }

    #[test]
    fn names_are_read() {
        for (text, user, password, address, database, tls) in [
            ("u:p@tcp(h:1)/d", "u", "p", tcp("h", 1), "d", Tls::Off),
            ("u:p:@/(x)@tcp(h)/?tls=true&parseTime=true", "u", "p:@/(x)", tcp("h", 3306), "", Tls::On),
            ("u@tcp([::1]:7)/d?tls=skip-verify", "u", "", tcp("::1", 7), "d", Tls::Unverified),
            ("u:p@unix(/run/my.sock)/d", "u", "p", Address::Unix("/run/my.sock".to_owned()), "d", Tls::Off),
            ("/", "", "", tcp("127.0.0.1", 3306), "", Tls::Off),
            ("u@/d?tls=preferred", "u", "", tcp("127.0.0.1", 3306), "d", Tls::Preferred),
            ("u@/d?tls=custom", "u", "", tcp("127.0.0.1", 3306), "d", Tls::Own),
        ] {
            let (user, password, database) = (user.to_owned(), password.to_owned(), database.to_owned());
            let expected = Dsn { user, password, address, tls, cleartext: false, database };
            assert_eq!(Dsn::read(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named_without_their_values() {
        for (text, expected) in [
            ("", "form"),
            ("u:hunter2@tcp(h:1)", "form"),
            ("u:hunter2@tcp(h:hunter2)/", "port"),
            ("u:hunter2@pipe(h)/", "network"),
            ("u:p@tcp(h)/?tls=hunter2", "tls"),
        ] {
            let error = Dsn::read(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{text}: {error}");
        }
        assert!(Dsn::read("/?tls=custom").unwrap().options(None).is_err());
        let debug = format!("{:?}", Dsn::read("u:hunter2@tcp(h:1)/d").unwrap());
        assert!(debug.contains("\"u\"") && !debug.contains("hunter2"), "{debug}");
    }
}
