//! Addresses made from names: `nameresolution.nameformat` (`{appid}`), and Kubernetes' services
//! (`{appid}-dapr.{namespace}.svc.cluster.local:{port}`).

use super::check_app_id;
use dhow_blocks::error::BlockError;
use std::net::SocketAddr;
use std::time::Duration;

/// A name server that does not answer within this time is not there.
const DEADLINE: Duration = Duration::from_secs(5);

/// How the names of services are made. Placeholders are `{appid}`, `{namespace}` and `{port}`, or, as in a
/// template of Go, `{{.ID}}`, `{{.Namespace}}` and `{{.Port}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsResolver {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    AppId,
    Namespace,
    Port,
}

const PLACEHOLDERS: &[(&str, Part)] = &[
    ("{{.ID}}", Part::AppId),
    ("{{.Namespace}}", Part::Namespace),
    ("{{.Port}}", Part::Port),
    ("{appid}", Part::AppId),
    ("{namespace}", Part::Namespace),
    ("{port}", Part::Port),
];

// === impl DnsResolver ===

impl DnsResolver {
    /// Reads a format. It needs the app-id: without it, all apps would be one.
    pub fn new(format: &str) -> Result<DnsResolver, BlockError> {
        let mut parts = Vec::new();
        let mut rest = format;
        while let Some(start) = rest.find(['{', '}']) {
            let (text, placeholder) = rest.split_at(start);
            let found =
                PLACEHOLDERS.iter().find_map(|(name, part)| Some((part, placeholder.strip_prefix(name)?)));
            let Some((part, after)) = found else {
                let reason = format!("format {format:?}: known are {{appid}}, {{namespace}} and {{port}}");
                return Err(BlockError::Invalid { reason });
            };
            parts.extend([Part::Text(text.to_owned()), part.clone()]);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        if !parts.contains(&Part::AppId) {
            let reason = format!("format {format:?}: must contain {{appid}}");
            return Err(BlockError::Invalid { reason });
        }
        Ok(DnsResolver { parts })
    }

    /// The services that Dapr makes in Kubernetes; `cluster_domain` is `cluster.local` as a rule.
    pub fn kubernetes(cluster_domain: &str) -> Result<DnsResolver, BlockError> {
        DnsResolver::new(&format!("{{appid}}-dapr.{{namespace}}.svc.{cluster_domain}:{{port}}"))
    }

    /// The address of an app: a name, and its port where the format has one.
    pub fn address(&self, app_id: &str, namespace: &str, port: u16) -> Result<String, BlockError> {
        check_app_id(app_id)?;
        if self.parts.contains(&Part::Namespace) {
            check_app_id(namespace).map_err(|_| BlockError::invalid("the namespace is not one"))?;
        }
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::AppId => app_id.to_owned(),
            Part::Namespace => namespace.to_owned(),
            Part::Port => port.to_string(),
        };
        Ok(self.parts.iter().map(text).collect())
    }

    /// The sockets of an app, asked of the system's resolver; `port` is used where the format has none.
    pub async fn lookup(
        &self,
        app_id: &str,
        namespace: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, BlockError> {
        let mut address = self.address(app_id, namespace, port)?;
        let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if !has_port {
            address = format!("{address}:{port}");
        }
        match tokio::time::timeout(DEADLINE, tokio::net::lookup_host(&address)).await {
            Ok(Ok(found)) => Ok(found.collect()),
            Ok(Err(error)) => Err(BlockError::unavailable(format!("cannot resolve {address}: {error}"))),
            Err(_) => {
                let reason = format!("cannot resolve {address}: no name server answered in {DEADLINE:?}");
                Err(BlockError::Unavailable { reason })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        for (format, expected) in [
            ("{appid}", "cart"),
            ("service-{appid}.default.svc.cluster.local", "service-cart.default.svc.cluster.local"),
            ("{{.ID}}-dapr.{{.Namespace}}.svc.x:{{.Port}}", "cart-dapr.shop.svc.x:50002"),
            ("{appid}.{appid}.{namespace}:{port}", "cart.cart.shop:50002"),
        ] {
            let resolver = DnsResolver::new(format).unwrap();
            assert_eq!(resolver.address("cart", "shop", 50002).as_deref(), Ok(expected), "{format}");
        }
        let kubernetes = DnsResolver::kubernetes("cluster.local").unwrap();
        assert_eq!(
            kubernetes.address("cart", "shop", 50002).as_deref(),
            Ok("cart-dapr.shop.svc.cluster.local:50002")
        );
        for (app_id, namespace) in
            [("evil.example/", "shop"), ("cart", "a b"), ("{port}", "shop"), ("", "shop")]
        {
            assert!(kubernetes.address(app_id, namespace, 1).is_err(), "{app_id} {namespace}");
        }
        for format in ["", "x", "{namespace}", "{appid", "appid}", "{{.Id}}", "{appid}{", "{}{appid}", "🐪"]
        {
            assert!(DnsResolver::new(format).is_err(), "{format}");
        }
    }

    #[tokio::test]
    async fn lookups() {
        let resolver = DnsResolver::new("{appid}").unwrap();
        let found = resolver.lookup("127.0.0.1", "", 80).await.unwrap();
        assert_eq!(found, ["127.0.0.1:80".parse().unwrap()]);
        assert!(resolver.lookup("no-such-host.invalid", "", 80).await.is_err());
    }
}
