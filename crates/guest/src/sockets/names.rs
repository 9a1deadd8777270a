//! Names of an app's guests: which they may ask for, and what those are granted that a name led to.

use crate::setup::Setup;
use dhow_blocks::grants::{Ask, Denied};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The system has this long for a name.
const PATIENCE: Duration = Duration::from_secs(10);

/// Addresses that are remembered, and names of each; beyond, all is forgotten at once.
const MAX_NAMES: usize = 1024;

/// The granted names under which an app's guests found an address.
#[derive(Default)]
pub struct Names(Mutex<HashMap<IpAddr, Vec<Arc<str>>>>);

/// Why a name has no address.
pub(crate) enum Unresolved {
    /// No grant names it.
    Denied(Denied),
    /// The system did not answer in time.
    Late,
    /// Nobody knows it.
    Unknown,
}

// === impl Setup ===

impl Setup {
    /// The addresses of a name that is granted, IPv4 first; they may be connected to under the name's grant.
    pub(crate) async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
        let name: Arc<str> = name.strip_suffix('.').unwrap_or(name).into();
        if self.is_runtime_name(&name) {
            let ip = Ipv4Addr::LOCALHOST.into();
            self.names.learn(ip, &name);
            return Ok(vec![ip]);
        }
        self.scope.check(Ask::Resolve(&name)).map_err(Unresolved::Denied)?;
        let found = match tokio::time::timeout(PATIENCE, tokio::net::lookup_host((&*name, 0))).await {
            Err(_) => return Err(Unresolved::Late),
            Ok(Err(_)) => return Err(Unresolved::Unknown),
            Ok(Ok(found)) => found,
        };
        let mut addresses: Vec<IpAddr> = found.map(|address| address.ip().to_canonical()).collect();
        addresses.sort_by_key(IpAddr::is_ipv6);
        addresses.dedup();
        addresses.iter().for_each(|ip| self.names.learn(*ip, &name));
        Ok(addresses)
    }

    /// Allows or refuses a connection or a datagram to this address: as an address, or as what a granted name
    /// resolved to.
    pub(crate) fn may_connect(&self, address: SocketAddr) -> Result<(), Denied> {
        // An IPv4 address in the clothes of IPv6 is the same place.
        let ip = address.ip().to_canonical();
        let port = address.port();
        if self.names.of(ip).iter().any(|host| self.scope.grants.allows(Ask::Connect { host, port })) {
            return Ok(());
        }
        self.scope.check(Ask::Connect { host: &ip.to_string(), port })
    }
}

// === impl Names ===

impl Names {
    /// The names that led to this address.
    pub(super) fn of(&self, ip: IpAddr) -> Vec<Arc<str>> {
        self.0.lock().get(&ip).cloned().unwrap_or_default()
    }

    fn learn(&self, ip: IpAddr, name: &Arc<str>) {
        let mut known = self.0.lock();
        if known.len() >= MAX_NAMES {
            known.clear();
        }
        let names = known.entry(ip).or_default();
        if names.len() < MAX_NAMES && !names.contains(name) {
            names.push(Arc::clone(name));
        }
    }
}
