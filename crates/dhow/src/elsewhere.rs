//! What a host knows of apps that are not its own: hosts of the same user, and services named by resources.

use crate::serve::Serving;
use crate::{Error, folders, process};
use dhow_api::neighbours::{Internal, Neighbours, Service};
use dhow_api::server::Listener;
use dhow_blocks::resolve::{NameResolver, Place};
use dhow_host::Components;
use dhow_providers::resolve::sqlite::SqliteResolver;
use http::header::{HeaderName, HeaderValue};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// The file in which the hosts of a user find one another.
const FILE: &str = "names.db";

/// Opens the internal port, and makes these apps known to the other hosts of this user. A host that nobody can find
/// serves all the same.
pub(crate) async fn join(
    serving: &mut Serving,
    app_ids: &[String],
    port: Option<u16>,
) -> Result<Option<Arc<dyn NameResolver>>, Error> {
    let services = services(serving.host.components()).await?;
    let resolver = match folders::hosts().and_then(|folder| Some(folder.parent()?.join(FILE))) {
        Some(file) => Arc::new(SqliteResolver::new(file)) as Arc<dyn NameResolver>,
        None => {
            serving.host.look_elsewhere(Arc::new(Neighbours::new(None, services)));
            return Ok(None);
        }
    };
    let listener = Listener::tcp(SocketAddr::from(([127, 0, 0, 1], port.unwrap_or(0))));
    let listener = listener.map_err(|error| Error::new(error.to_string()))?;
    let address = listener.address().map(|address| address.to_string()).unwrap_or_default();
    let token = process::random_token()?;
    let here = Place { address, token: token.clone() };
    // Nobody waits for it: a host with thousands of apps serves while they are written down.
    let (names, app_ids) = (Arc::clone(&resolver), app_ids.to_vec());
    tokio::spawn(async move {
        for app_id in app_ids {
            if let Err(error) = names.register(&app_id, &here).await {
                tracing::warn!("other hosts will not find app {app_id}: {error}");
            }
        }
    });
    serving.serve(listener, Arc::new(Internal { host: Arc::clone(&serving.host), secret: token }));
    serving.host.look_elsewhere(Arc::new(Neighbours::new(Some(Arc::clone(&resolver)), services)));
    Ok(Some(resolver))
}

/// The services that resources name, with the secrets of their headers.
async fn services(components: &Components) -> Result<HashMap<String, Service>, Error> {
    let mut services = HashMap::new();
    for endpoint in components.http_endpoints() {
        let wrong = |what: &str| Error::new(format!("{}:{}: {what}", endpoint.file.display(), endpoint.line));
        let base = endpoint.base_url.parse().map_err(|_| wrong("spec.baseUrl is not a URL"))?;
        let resolved = components.endpoint_headers(endpoint).await.map_err(|reason| wrong(&reason))?;
        let mut headers = Vec::with_capacity(resolved.len());
        for (name, value) in resolved {
            let name = HeaderName::try_from(&name).map_err(|_| wrong("a header's name is not valid"))?;
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| wrong(&format!("the value of header {name} is not valid")))?;
            value.set_sensitive(true);
            headers.push((name, value));
        }
        services.insert(endpoint.name.clone(), Service { base, headers });
    }
    Ok(services)
}
