//! What the components of S3 have in common: the account, the way to the server, and what refusals mean.
//!
//! Requests are signed in their URL (AWS Signature Version 4) by rusty-s3, which knows nothing of sockets; they are sent
//! by the client that all providers share. Credentials are the component's, or those in `AWS_ACCESS_KEY_ID`,
//! `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`; [`role`] gets those of a role for them.

pub mod role;

use crate::http_client::HttpClient;
use crate::registry::{ComponentSpec, OpenError};
use crate::tls::Tls;
use dhow_blocks::error::BlockError;
use rusty_s3::{Bucket, Credentials, UrlStyle};
use std::time::Duration;
use url::Url;

/// A signature is good for as long as the clocks of S3 and its clients may differ.
pub(crate) const SIGNATURE: Duration = Duration::from_secs(15 * 60);

/// S3 signs for no longer.
pub(crate) const LONGEST_SIGNATURE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A request has to be answered whole within this time.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

/// Lists and messages are shorter.
pub(crate) const MAX_ANSWER: u64 = 16 * 1024 * 1024;

/// Where a server is and who uses it, for those who have no component to say so.
#[derive(Clone, Default)]
pub struct AccountOptions {
    /// `http://HOST:PORT` or `https://…`; empty: Amazon's in that region.
    pub endpoint: String,
    /// Empty: `us-east-1`.
    pub region: String,
    /// Whether the bucket stands in the path of URLs, else in their host.
    pub path_style: bool,
    /// Access key, secret key and, for a session, its token; none: the variables of the environment.
    pub keys: Option<(String, String, Option<String>)>,
    /// Certificates of the authorities to trust instead of the system's, PEM.
    pub authorities: Option<Vec<u8>>,
}

/// An account at a server.
pub struct Account {
    pub(crate) client: HttpClient,
    pub(crate) credentials: Credentials,
    endpoint: Url,
    region: String,
    style: UrlStyle,
}

/// Layotto's field `SSL`, which is off in its MinIO stores unless it says on.
fn is_secure(component: &ComponentSpec) -> bool {
    component.flag(&["SSL"], !component.component_type.eq_ignore_ascii_case("file.minio"))
}

// === impl Account ===

impl Account {
    /// An account without a component. The error says what is wrong, and no secret.
    pub fn open(options: AccountOptions) -> Result<Account, String> {
        let region = if options.region.is_empty() { "us-east-1".to_owned() } else { options.region };
        let endpoint = match options.endpoint.as_str() {
            "" => format!("https://s3.{region}.amazonaws.com"),
            endpoint => endpoint.to_owned(),
        };
        let endpoint = Url::parse(&endpoint).map_err(|error| {
            format!("the endpoint {endpoint:?} is no URL such as http://host:9000: {error}")
        })?;
        let credentials = match options.keys {
            Some((key, secret, Some(token))) => Credentials::new_with_token(key, secret, token),
            Some((key, secret, None)) => Credentials::new(key, secret),
            None => Credentials::from_env().ok_or(
                "no credentials: name their Secrets, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )?,
        };
        let client = HttpClient::new(&Tls { authorities: options.authorities, ..Tls::default() })?;
        let style = if options.path_style { UrlStyle::Path } else { UrlStyle::VirtualHost };
        Ok(Account { client, credentials, endpoint, region, style })
    }

    /// Reads a component's metadata. `path_style` says how URLs name the bucket where the component does not.
    pub(crate) fn read(component: &ComponentSpec, path_style: bool) -> Result<Account, OpenError> {
        let failed = |reason: String| OpenError::Backend { component: component.name.clone(), reason };
        let region = component.field(&["region", "awsRegion"]).unwrap_or("us-east-1");
        let endpoint = match component.field(&["endpoint"]) {
            None => format!("https://s3.{region}.amazonaws.com"),
            Some(endpoint) if endpoint.contains("://") => endpoint.to_owned(),
            Some(host) if component.truthy(&["disableSSL"]) || !is_secure(component) => {
                format!("http://{host}")
            }
            Some(host) => format!("https://{host}"),
        };
        let endpoint = Url::parse(&endpoint)
            .map_err(|_| component.invalid(&["endpoint"], "a URL such as http://localhost:9000"))?;
        let style = match component.flag(&["forcePathStyle"], path_style) {
            true => UrlStyle::Path,
            false => UrlStyle::VirtualHost,
        };
        let keys = (
            component.field(&["accessKey", "awsAccessKey", "accessKeyID"]),
            component.field(&["secretKey", "awsSecretKey", "accessKeySecret"]),
            component.field(&["sessionToken", "awsSessionToken"]),
        );
        let credentials = match keys {
            (Some(key), Some(secret), Some(token)) => Credentials::new_with_token(key, secret, token),
            (Some(key), Some(secret), None) => Credentials::new(key, secret),
            (None, None, _) => Credentials::from_env().ok_or_else(|| {
                failed(
                    "no credentials: set accessKey and secretKey, or the variables \
                     AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the host"
                        .to_owned(),
                )
            })?,
            _ => return Err(component.invalid(&["secretKey"], "given together with accessKey")),
        };
        let insecure = component.truthy(&["insecureSSL"]);
        if insecure {
            let component = &component.name;
            tracing::warn!(component, "insecureSSL: the server's certificate is not checked");
        }
        let client = HttpClient::new(&Tls { insecure, ..Tls::default() }).map_err(failed)?;
        Ok(Account { client, credentials, endpoint, region: region.to_owned(), style })
    }

    /// Where its buckets are.
    pub(crate) fn region(&self) -> &str {
        &self.region
    }

    /// A bucket of the account; the error says why it has no URL.
    pub(crate) fn bucket(&self, name: &str) -> Result<Bucket, String> {
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if name.is_empty() || !name.bytes().all(is_legal) || name.starts_with('.') {
            return Err(format!("bucket {name:?}: expected a name of letters, digits, dots and hyphens"));
        }
        Bucket::new(self.endpoint.clone(), self.style, name.to_owned(), self.region.clone())
            .map_err(|error| format!("endpoint, bucket and forcePathStyle make no URL: {error}"))
    }
}

/// What S3 says when it does not do as it was asked. Its message may be about the key, and not the secret.
pub(crate) fn refusal(status: http::StatusCode, body: &[u8]) -> BlockError {
    let code = element(body, "Code").unwrap_or_default();
    let reason = match code.as_str() {
        "NoSuchKey" => "object not found".to_owned(),
        "" => format!("S3 answers {}", status.as_u16()),
        code => {
            format!("S3 answers {} {code}: {}", status.as_u16(), element(body, "Message").unwrap_or_default())
        }
    };
    match status.as_u16() {
        429 | 500.. => BlockError::Unavailable { reason },
        _ => BlockError::Failed { reason },
    }
}

/// The text of the first XML element of that name, cut off where it is for people.
pub(crate) fn element(body: &[u8], name: &str) -> Option<String> {
    const LONGEST: usize = 300;
    Some(content(&String::from_utf8_lossy(body), name)?.chars().take(LONGEST).collect())
}

/// The whole text of the first XML element of that name.
fn content<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the clients of the blob block send, sent by curl, which knows that `*.localhost` is this machine.
    #[test]
    fn a_bucket_may_be_a_part_of_the_hosts_name() {
        use rusty_s3::S3Action;
        let server = dhow_servers::moto().unwrap();
        let (key, secret) = dhow_servers::MOTO_KEYS;
        let account = |path_style| {
            let endpoint = format!("http://localhost:{}", server.port());
            let keys = Some((key.to_owned(), secret.to_owned(), None));
            let options = AccountOptions { endpoint, path_style, keys, ..AccountOptions::default() };
            Account::open(options).unwrap()
        };
        let curl = |args: &[&str], url: Url| {
            let resolve = format!("artifacts.localhost:{}:127.0.0.1", server.port());
            let mut command = std::process::Command::new("curl");
            command.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "30"]);
            let output = command.args(["--resolve", &resolve]).args(args).arg(url.as_str()).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let lasts = std::time::Duration::from_secs(60);
        let (by_host, by_path) = (account(false), account(true));
        let bucket = by_host.bucket("artifacts").unwrap();
        curl(&["-X", "PUT", "--data-binary", ""], bucket.create_bucket(&by_host.credentials).sign(lasts));
        let put = bucket.put_object(Some(&by_host.credentials), "a folder/b.txt").sign(lasts);
        assert_eq!((put.host_str(), put.path()), (Some("artifacts.localhost"), "/a%20folder/b.txt"));
        // As a form, which is what curl calls it by itself, the server would read it away.
        let plain = "content-type: application/octet-stream";
        curl(&["-X", "PUT", "--data-binary", "kept", "--header", plain], put);
        let bucket = by_path.bucket("artifacts").unwrap();
        let get = bucket.get_object(Some(&by_path.credentials), "a folder/b.txt").sign(lasts);
        assert_eq!((get.host_str(), get.path()), (Some("localhost"), "/artifacts/a%20folder/b.txt"));
        assert_eq!(curl(&[], get), "kept");
    }

    #[test]
    fn refusals() {
        let status = http::StatusCode::NOT_FOUND;
        let body = "<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>";
        assert_eq!(refusal(status, body.as_bytes()).to_string(), "object not found");
        for body in [&b""[..], b"<Code>", b"\xff\xff", b"<Code></Code>"] {
            assert_eq!(refusal(status, body).to_string(), "S3 answers 404");
        }
        assert!(matches!(
            refusal(http::StatusCode::SERVICE_UNAVAILABLE, b""),
            BlockError::Unavailable { .. }
        ));
    }
}
