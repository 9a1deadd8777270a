//! Proxies between here and a server: which one `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` name for it. `connector` goes
//! through it.
//!
//! The variables mean what they mean to Docker, skopeo and oras (`golang.org/x/net/http/httpproxy`): the first says how
//! `https://` is reached, the second how `http://` is; upper case wins over lower case. `NO_PROXY` is a list with commas:
//! `*`, addresses, networks (`10.0.0.0/8`), names (with all below them; with a dot before them only those), each but
//! networks perhaps with a port. This machine (`localhost`, loopback) is never reached through a proxy.
//!
//! `https://` goes through a tunnel (CONNECT, RFC 9110, section 9.3.6), so that a proxy sees names and sizes only; of
//! `http://` it is asked for the whole URL.

mod connector;

pub(crate) use connector::ProxyConnector;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use std::net::IpAddr;

/// The proxies of a user.
#[derive(Default)]
pub(crate) struct Proxies {
    /// Those for `http://` and `https://`; what is wrong with a variable is told when it is needed.
    http: Option<Result<Proxy, String>>,
    https: Option<Result<Proxy, String>>,
    except: Vec<Exception>,
}

/// One proxy.
#[derive(Clone)]
struct Proxy {
    /// Scheme, host and port, and nothing that is secret.
    uri: Uri,
    /// `Proxy-Authorization`.
    authorization: Option<HeaderValue>,
}

/// What is reached without a proxy.
enum Exception {
    All,
    Network(IpAddr, u8),
    Address(IpAddr, Option<u16>),
    Name {
        /// In lower case, with a dot before it.
        suffix: String,
        /// Whether the name itself is meant, too.
        whole: bool,
        port: Option<u16>,
    },
}

// === impl Proxies ===

impl Proxies {
    /// Those that the environment names.
    pub(crate) fn of_user() -> Proxies {
        Proxies::new(|name| std::env::var(name).ok())
    }

    fn new(variable: impl Fn(&str) -> Option<String>) -> Proxies {
        let either = |upper: &str| {
            let value = variable(upper).filter(|value| !value.is_empty());
            value.or_else(|| variable(&upper.to_ascii_lowercase()).filter(|value| !value.is_empty()))
        };
        let proxy = |name: &str| {
            let text = either(name)?;
            Some(Proxy::parse(&text).map_err(|reason| format!("{name} names no proxy: {reason}")))
        };
        let except = either("NO_PROXY").unwrap_or_default();
        Proxies {
            http: proxy("HTTP_PROXY"),
            https: proxy("HTTPS_PROXY"),
            except: except.split(',').filter_map(Exception::parse).collect(),
        }
    }

    /// The proxy for a URL.
    fn of(&self, uri: &Uri) -> Result<Option<&Proxy>, String> {
        let (proxy, usual) = match uri.scheme_str() {
            Some("https") => (&self.https, 443),
            _ => (&self.http, 80),
        };
        let Some(proxy) = proxy else { return Ok(None) };
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        let is_here = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        let port = uri.port_u16().unwrap_or(usual);
        if is_here || self.except.iter().any(|exception| exception.holds(&host, address, port)) {
            return Ok(None);
        }
        proxy.as_ref().map(Some).map_err(Clone::clone)
    }

    /// `Proxy-Authorization` for a request to this URL; of a tunnel it is part of opening it.
    pub(crate) fn authorization(&self, uri: &Uri) -> Option<HeaderValue> {
        let is_plain = uri.scheme_str() == Some("http");
        self.of(uri).ok().flatten().filter(|_| is_plain)?.authorization.clone()
    }
}

// === impl Proxy ===

impl Proxy {
    /// `http://user:password@host:port`; only the host has to be there.
    fn parse(text: &str) -> Result<Proxy, String> {
        const EXPECTED: &str = "expected http://HOST:PORT or https://HOST:PORT";
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let scheme = scheme.to_ascii_lowercase();
        let usual = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            "socks5" | "socks5h" => return Err(format!("proxies of SOCKS are not spoken with; {EXPECTED}")),
            _ => return Err(EXPECTED.to_owned()),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (who, host) = match authority.rsplit_once('@') {
            Some((who, host)) => (Some(who), host),
            None => (None, authority),
        };
        // The reason of the parser is not told: it may repeat a password.
        let parsed: Uri = format!("{scheme}://{host}/").parse().map_err(|_| EXPECTED.to_owned())?;
        let name = parsed.host().filter(|name| !name.is_empty()).ok_or(EXPECTED)?;
        let port = parsed.port_u16().unwrap_or(usual);
        let uri = format!("{scheme}://{name}:{port}/").parse().map_err(|_| EXPECTED.to_owned())?;
        let authorization = who.map(|who| {
            let (user, password) = who.split_once(':').unwrap_or((who, ""));
            let pair = [user, password].map(|text| percent_decode_str(text).collect::<Vec<u8>>()).join(&b':');
            let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)));
            value.map(|mut value| {
                value.set_sensitive(true);
                value
            })
        });
        let authorization = authorization.transpose().map_err(|_| EXPECTED.to_owned())?;
        Ok(Proxy { uri, authorization })
    }
}

// === impl Exception ===

impl Exception {
    fn parse(text: &str) -> Option<Exception> {
        let text = text.trim().to_ascii_lowercase();
        if text == "*" {
            return Some(Exception::All);
        }
        if let Some((address, bits)) = text.split_once('/') {
            return Some(Exception::Network(address.parse().ok()?, bits.parse().ok()?));
        }
        if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse() {
            return Some(Exception::Address(address, None));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (text.as_str(), None),
        };
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() {
            return Some(Exception::Address(address, port));
        }
        let name = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        let below = name.trim_start_matches('.');
        let whole = !name.starts_with('.');
        (!below.is_empty()).then(|| Exception::Name { suffix: format!(".{below}"), whole, port })
    }

    fn holds(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        match self {
            Exception::All => true,
            Exception::Network(network, bits) => {
                address.is_some_and(|address| is_within(address, *network, *bits))
            }
            Exception::Address(known, wanted) => {
                address == Some(*known) && wanted.is_none_or(|wanted| wanted == port)
            }
            Exception::Name { suffix, whole, port: wanted } => {
                let is_named = host.ends_with(suffix.as_str()) || (*whole && host == &suffix[1..]);
                is_named && wanted.is_none_or(|wanted| wanted == port)
            }
        }
    }
}

fn is_within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let same = |one: u128, other: u128, width: u32| {
        width.checked_sub(bits.into()).is_some_and(|rest| one.checked_shr(rest) == other.checked_shr(rest))
    };
    match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => same(u32::from(one).into(), u32::from(other).into(), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => same(one.into(), other.into(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::Proxies;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::new(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn proxy(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let proxies = proxies(variables);
        let proxy = proxies.of(&url.parse().unwrap()).unwrap_or_else(|reason| panic!("{url}: {reason}"));
        proxy.map(|proxy| proxy.uri.to_string())
    }

    #[test]
    fn the_scheme_says_which_variable_is_meant() {
        let both = [("HTTPS_PROXY", "https://secure"), ("http_proxy", "plain:3128")];
        let upper_first = [("HTTPS_PROXY", "one:1"), ("https_proxy", "two:2")];
        let empty = [("HTTPS_PROXY", ""), ("https_proxy", "http://two:2/ignored")];
        for (variables, url, expected) in [
            (&both[..], "https://r.io/v2/", Some("https://secure:443/")),
            (&both, "http://r.io/v2/", Some("http://plain:3128/")),
            (&both[1..], "https://r.io/v2/", None),
            (&upper_first, "https://r.io", Some("http://one:1/")),
            (&empty, "https://r.io", Some("http://two:2/")),
            (&[("HTTPS_PROXY", "[::1]:8")], "https://r.io", Some("http://[::1]:8/")),
            (&[("HTTPS_PROXY", "HTTP://u:p@one")], "https://r.io", Some("http://one:80/")),
            (&both, "https://localhost:5000/", None),
            (&both, "https://127.9.9.9/", None),
            (&both, "http://[::1]:5000/", None),
        ] {
            assert_eq!(proxy(variables, url).as_deref(), expected, "{variables:?} {url}");
        }
    }

    #[test]
    fn what_has_no_proxy_is_reached_directly() {
        for (none, url, direct) in [
            ("*", "https://r.io", true),
            ("", "https://r.io", false),
            ("r.io", "https://R.io", true),
            ("r.io", "https://eu.r.io", true),
            ("r.io", "https://xr.io", false),
            (".r.io", "https://r.io", false),
            ("*.r.io", "https://eu.r.io", true),
            (" a.b , R.IO:443", "https://r.io", true),
            ("r.io:5000", "https://r.io", false),
            ("r.io:5000", "https://r.io:5000", true),
            ("10.0.0.0/8", "https://10.9.9.9", true),
            ("10.0.0.0/8", "https://11.0.0.1", false),
            ("0.0.0.0/0", "https://11.0.0.1", true),
            ("0.0.0.0/0", "https://[fd00::1]", false),
            ("10.0.0.0/99", "https://10.0.0.1", false),
            ("fd00::/8", "https://[fd00::1]:5000", true),
            ("10.1.2.3", "https://10.1.2.3:5000", true),
            ("10.1.2.3:80", "https://10.1.2.3:5000", false),
            ("[fd00::1]:443", "https://[fd00::1]", true),
            (",,:,/,:x", "https://r.io", false),
        ] {
            let variables = [("HTTPS_PROXY", "p:1"), ("no_proxy", none)];
            assert_eq!(proxy(&variables, url).is_none(), direct, "{none} {url}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_told_when_it_is_needed_and_secrets_are_not() {
        for text in
            ["ftp://u:hunter2@p", "http://u:hunter2@", "socks5://u:hunter2@p:1", "http://u:hunter2@a b"]
        {
            let proxies = proxies(&[("HTTPS_PROXY", text)]);
            assert!(proxies.of(&"http://r.io".parse().unwrap()).unwrap().is_none());
            let reason = proxies.of(&"https://r.io".parse().unwrap()).map(|_| ()).unwrap_err();
            assert!(
                reason.starts_with("HTTPS_PROXY names no proxy") && !reason.contains("hunter2"),
                "{reason}"
            );
        }
    }

    #[test]
    fn only_a_proxy_is_told_who_asks_it() {
        let proxies = proxies(&[("HTTP_PROXY", "http://me:p%40ss%zz@p:1"), ("NO_PROXY", "other.io")]);
        let header = |url: &str| proxies.authorization(&url.parse().unwrap());
        // "me:p@ss%zz"
        assert_eq!(header("http://r.io").unwrap(), "Basic bWU6cEBzcyV6eg==");
        assert!(header("http://r.io").unwrap().is_sensitive());
        for url in ["https://r.io", "http://other.io", "http://localhost"] {
            assert!(header(url).is_none(), "{url}");
        }
    }
}
