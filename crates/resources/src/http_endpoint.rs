//! A Dapr HTTP endpoint: `kind: HTTPEndpoint`, a server outside that apps invoke by a name.
//!
//! Format: Dapr documentation, "HTTPEndpoint spec" (apiVersion `dapr.io/v1alpha1`).

use crate::component::{self, MetadataItem, MetadataValue};
use crate::error::quote;
use crate::object::{self, NameIsFor, required_scalar, required_table};
use crate::tree::{Findings, Node, Position, Table, Value};
use crate::values;
use std::path::{Path, PathBuf};

/// The apiVersion of HTTP endpoints.
pub const API_VERSION: &str = "dapr.io/v1alpha1";

/// An HTTP endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpEndpoint {
    /// `metadata.name`: the name that apps invoke.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: Option<String>,
    /// `spec.baseUrl`: `http://` or `https://`, a host, perhaps a port and a path, without a slash at its end and
    /// without user and password.
    pub base_url: String,
    /// `spec.headers`: what every request gets. Names are valid; plain values have no line breaks.
    pub headers: Vec<MetadataItem>,
    /// `spec.clientTLS`.
    pub client_tls: Option<ClientTls>,
    /// `auth.secretStore`: the secret store that [`MetadataValue::SecretRef`] refers to.
    pub auth_secret_store: Option<String>,
    /// `scopes`: the apps that see this endpoint; empty: all.
    pub scopes: Vec<String>,
    /// The file.
    pub file: PathBuf,
    /// The line of the document's first field.
    pub line: usize,
}

/// `spec.clientTLS`: PEM texts, written out or in a secret store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// `rootCA`: whom to trust in place of the usual authorities.
    pub root_ca: Option<MetadataValue>,
    /// `certificate`: what the host shows to the server. Always together with `private_key`.
    pub certificate: Option<MetadataValue>,
    /// `privateKey`.
    pub private_key: Option<MetadataValue>,
    /// `renegotiation`. Default never.
    pub renegotiation: Renegotiation,
}

/// Whether a server may ask for a new TLS handshake on an open connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Renegotiation {
    /// Never.
    #[default]
    Never,
    /// Once a connection.
    OnceAsClient,
    /// As often as it likes.
    FreelyAsClient,
}

// === impl HttpEndpoint ===

impl HttpEndpoint {
    /// Whether an app may see this endpoint.
    pub fn is_in_scope(&self, app_id: &str) -> bool {
        object::is_in_scope(&self.scopes, app_id)
    }

    /// Reads a document of this kind; what is wrong goes to the findings.
    pub(crate) fn read(findings: &mut Findings, document: &Node, file: &Path) -> Option<HttpEndpoint> {
        let (mut top, _) = object::open(findings, document, "HTTPEndpoint", &[API_VERSION])?;
        let object = object::metadata(findings, &mut top, NameIsFor::Apps);
        let spec = required_table(findings, &mut top, "spec");
        let auth_secret_store = object::secret_store(findings, &mut top);
        let scopes = object::scopes(findings, &mut top);
        top.finish(findings);

        let (name, namespace) = object?;
        let mut spec = spec?;
        let url =
            required_scalar(findings, &mut spec, "baseUrl", "expected a URL such as https://example.com");
        let base_url = url.and_then(|url| {
            let at = spec.get("baseUrl").map_or(spec.at, |node| node.at);
            base_url(findings, at, &spec.path_of("baseUrl"), &url)
        });
        let headers = spec.optional(findings, "headers", headers).unwrap_or_default();
        let client_tls = spec.optional(findings, "clientTLS", values::table(client_tls));
        // Examples in Dapr's documentation have a version here, which means nothing.
        spec.get("version");
        spec.finish(findings);
        Some(HttpEndpoint {
            name: name?,
            namespace,
            base_url: base_url?,
            headers,
            client_tls,
            auth_secret_store,
            scopes,
            file: file.to_owned(),
            line: document.at.line,
        })
    }
}

/// Checks a base URL. It is not repeated in the error, as it may hold a password.
fn base_url(findings: &mut Findings, at: Position, path: &str, url: &str) -> Option<String> {
    const EXAMPLE: &str = "expected http:// or https:// and a host, such as https://example.com/api";
    let (_, rest) = url
        .split_once("://")
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
        .or_else(|| {
            findings.add(at, path, "the URL does not begin with http:// or https://", EXAMPLE);
            None
        })?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (message, hint) = if authority.contains('@') {
        ("the URL has a user or password", "give them as a header with secretKeyRef")
    } else if rest.contains(['?', '#']) {
        ("the URL has a query or fragment", "expected the beginning of URLs: the path is appended to it")
    } else if authority.is_empty() || authority.starts_with(':') {
        ("the URL has no host", EXAMPLE)
    } else if rest.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        ("the URL has a blank, backslash or control character", EXAMPLE)
    } else {
        return Some(url.trim_end_matches('/').to_owned());
    };
    findings.add(at, path, message, hint);
    None
}

fn headers(findings: &mut Findings, node: &Node, path: &str) -> Option<Vec<MetadataItem>> {
    let headers = component::metadata(findings, node, path)?;
    // The list was read without gaps only if nothing was wrong in it; then both are of one length.
    if let Value::List(nodes) = &node.value
        && nodes.len() == headers.len()
    {
        for (index, (node, header)) in nodes.iter().zip(&headers).enumerate() {
            let path = format!("{path}[{index}]");
            if !header.name.bytes().all(is_token_byte) {
                let message = format!("{} cannot be the name of a header", quote(&header.name));
                findings.add(node.at, &path, message, "expected letters, digits and `-`");
            }
            if let MetadataValue::Plain(text) = &header.value
                && text.contains(|c: char| c.is_control() && c != '\t')
            {
                findings.add(node.at, &path, "the value has a line break or control character", "");
            }
        }
    }
    Some(headers)
}

/// Bytes of a header's name (RFC 9110, section 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn client_tls(findings: &mut Findings, table: &mut Table<'_>) -> Option<ClientTls> {
    const RENEGOTIATIONS: &[(&str, Renegotiation)] = &[
        ("Never", Renegotiation::Never),
        ("OnceAsClient", Renegotiation::OnceAsClient),
        ("FreelyAsClient", Renegotiation::FreelyAsClient),
    ];
    let root_ca = table.optional(findings, "rootCA", values::table(pem));
    let certificate = table.optional(findings, "certificate", values::table(pem));
    let private_key = table.optional(findings, "privateKey", values::table(pem));
    let renegotiation = table.optional(findings, "renegotiation", values::word(RENEGOTIATIONS));
    if table.has("certificate") != table.has("privateKey") {
        let message = "has only one of `certificate` and `privateKey`";
        findings.add(table.at, &table.path, message, "expected both or none");
    }
    Some(ClientTls { root_ca, certificate, private_key, renegotiation: renegotiation.unwrap_or_default() })
}

fn pem(findings: &mut Findings, table: &mut Table<'_>) -> Option<MetadataValue> {
    let plain = table.optional(findings, "value", values::name);
    let secret = table.optional(findings, "secretKeyRef", component::secret_ref);
    let count = match (table.has("value"), table.has("secretKeyRef")) {
        (true, true) => "more than one value",
        (false, false) => "no value",
        _ => return secret.or(plain.map(MetadataValue::Plain)),
    };
    findings.add(table.at, &table.path, format!("has {count}"), "expected value or secretKeyRef");
    None
}
