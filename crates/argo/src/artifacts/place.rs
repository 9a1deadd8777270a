//! Locations that are not the repository's: what a workflow says about them, and what a repository's configuration does.
//!
//! Field names: `S3Artifact`, `HTTPArtifact`, `GitArtifact`, … of Argo's field reference; a repository's are the same
//! and `keyFormat`. Which fields make a location of its own is Argo's rule as well: without all of them it is a key in
//! the repository.

use super::repository::ArtifactError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// An entry of a Secret.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SecretRef {
    /// The Secret.
    pub name: String,
    /// Its entry.
    pub key: String,
    /// It need not be there.
    pub optional: bool,
}

/// Objects in a bucket of S3, or of a server that speaks as S3 does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct S3 {
    /// `HOST:PORT`.
    pub endpoint: String,
    pub(super) bucket: String,
    pub(super) region: String,
    /// Plain HTTP.
    pub(super) insecure: bool,
    pub(super) access_key_secret: Option<SecretRef>,
    pub(super) secret_key_secret: Option<SecretRef>,
    pub(super) session_token_secret: Option<SecretRef>,
    #[serde(rename = "roleARN")]
    pub(super) role_arn: String,
    #[serde(rename = "useSDKCreds")]
    pub(super) use_sdk_creds: bool,
    pub(super) create_bucket_if_not_present: Option<Value>,
    pub(super) encryption_options: Option<Encryption>,
    pub(super) ca_secret: Option<SecretRef>,
    /// `path`, `virtual-hosted`, or what fits the endpoint.
    pub(super) addressing_style: String,
    pub(super) key: String,
    pub(super) key_format: String,
    pub(super) key_prefix: String,
}

/// How a server encrypts what it keeps.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Encryption {
    pub(super) enable_encryption: bool,
    pub(super) kms_key_id: String,
    pub(super) kms_encryption_context: String,
    pub(super) server_side_customer_key_secret: Option<SecretRef>,
}

/// Objects of Alibaba Cloud, through their S3 endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Oss {
    pub(super) endpoint: String,
    pub(super) bucket: String,
    pub(super) access_key_secret: Option<SecretRef>,
    pub(super) secret_key_secret: Option<SecretRef>,
    pub(super) security_token: String,
    pub(super) create_bucket_if_not_present: bool,
    pub(super) lifecycle_rule: Option<Value>,
    #[serde(rename = "useSDKCreds")]
    pub(super) use_sdk_creds: bool,
    pub(super) key: String,
    pub(super) key_format: String,
}

/// Objects in a bucket of Google's.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Gcs {
    pub(super) bucket: String,
    /// The JSON of a service account's key; none: the machine's credentials.
    pub(super) service_account_key_secret: Option<SecretRef>,
    pub(super) key: String,
    pub(super) key_format: String,
}

/// Blobs in a container of Azure's.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Azure {
    /// `https://ACCOUNT.blob.core.windows.net`.
    pub(super) endpoint: String,
    pub(super) container: String,
    /// The account's key, or a shared access signature.
    pub(super) account_key_secret: Option<SecretRef>,
    /// The machine's credentials.
    #[serde(rename = "useSDKCreds")]
    pub(super) use_sdk_creds: bool,
    pub(super) blob: String,
    pub(super) blob_name_format: String,
    /// Its key is in the environment, if it has one.
    #[serde(skip)]
    pub(super) is_from_command_line: bool,
}

/// A file on a web server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Http {
    pub(super) url: String,
    pub(super) headers: Vec<Header>,
    pub(super) auth: Auth,
    pub(super) save_stream_via_file: bool,
}

/// A header of a request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Header {
    pub(super) name: String,
    pub(super) value: String,
}

/// Who asks a web server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Auth {
    pub(super) basic_auth: Option<Basic>,
    pub(super) client_cert: Option<ClientCert>,
    pub(super) oauth2: Option<OAuth2>,
}

/// A name and a password.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Basic {
    pub(super) username_secret: Option<SecretRef>,
    pub(super) password_secret: Option<SecretRef>,
}

/// A certificate and its key.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct ClientCert {
    pub(super) client_cert_secret: Option<SecretRef>,
    pub(super) client_key_secret: Option<SecretRef>,
}

/// A token for credentials (RFC 6749, 4.4).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct OAuth2 {
    #[serde(rename = "clientIDSecret")]
    pub(super) client_id_secret: Option<SecretRef>,
    pub(super) client_secret_secret: Option<SecretRef>,
    #[serde(rename = "tokenURLSecret")]
    pub(super) token_url_secret: Option<SecretRef>,
    pub(super) scopes: Vec<String>,
    pub(super) endpoint_params: Vec<Parameter>,
}

/// A parameter of the request for a token.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Parameter {
    pub(super) key: String,
    pub(super) value: String,
}

/// A file in JFrog's Artifactory.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Artifactory {
    pub(super) url: String,
    pub(super) username_secret: Option<SecretRef>,
    pub(super) password_secret: Option<SecretRef>,
}

/// A Git repository.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Git {
    pub(super) repo: String,
    pub(super) revision: String,
    pub(super) depth: Option<u64>,
    pub(super) fetch: Vec<String>,
    pub(super) username_secret: Option<SecretRef>,
    pub(super) password_secret: Option<SecretRef>,
    pub(super) ssh_private_key_secret: Option<SecretRef>,
    pub(super) insecure_ignore_host_key: bool,
    pub(super) disable_submodules: bool,
    pub(super) single_branch: bool,
    pub(super) branch: String,
    #[serde(rename = "insecureSkipTLS")]
    pub(super) insecure_skip_tls: bool,
}

/// Where an artifact is, outside of the repository.
#[derive(Clone, Debug)]
pub(super) enum Place {
    S3(Box<S3>),
    Gcs(Box<Gcs>),
    Azure(Box<Azure>),
    Http(Box<Http>),
    Git(Box<Git>),
}

/// The fields of each kind that together make a location, the key last; and which field is the key.
const KINDS: [(&str, &[&str], Option<&str>); 9] = [
    ("s3", &["endpoint", "bucket", "key"], Some("key")),
    ("oss", &["endpoint", "bucket", "key"], Some("key")),
    ("gcs", &["bucket", "key"], Some("key")),
    ("azure", &["endpoint", "container", "blob"], Some("blob")),
    ("hdfs", &["addresses", "path"], Some("path")),
    ("http", &["url"], None),
    ("artifactory", &["url"], None),
    ("git", &["repo"], None),
    ("plugin", &["name", "configuration", "key"], Some("key")),
];

/// Of an artifact's fields: the kind of its own location, or the key in the repository.
pub(super) fn found(location: &BTreeMap<String, Value>) -> Option<Result<&'static str, String>> {
    KINDS.iter().find_map(|(kind, fields, key)| {
        let place = location.get(*kind)?;
        let is_given = |field: &&str| match place.get(*field) {
            None | Some(Value::Null) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        };
        if fields.iter().all(is_given) {
            return Some(Ok(*kind));
        }
        let key = place.get((*key)?).map(crate::model::scalar_text)?;
        (!key.is_empty()).then_some(Err(key))
    })
}

/// A kind's fields, read; the error names the one that is wrong.
pub(super) fn fields<T: DeserializeOwned>(kind: &str, value: &Value) -> Result<T, ArtifactError> {
    let read = serde_json::from_value(typed(value));
    read.map_err(|error| ArtifactError::Unsupported(format!("`{kind}`: {error}")))
}

/// What was a tag before is text now: truth values and numbers are what they say.
fn typed(value: &Value) -> Value {
    let Value::Object(map) = value else { return value.clone() };
    let field = |name: &String, value: &Value| match (name.as_str(), value) {
        ("depth", Value::String(text)) => text.parse::<u64>().map_or_else(|_| value.clone(), Value::from),
        (_, Value::String(text)) if text == "true" => Value::Bool(true),
        (_, Value::String(text)) if text == "false" => Value::Bool(false),
        _ => value.clone(),
    };
    let known = map.iter().filter(|(_, value)| !value.is_null());
    Value::Object(known.map(|(name, value)| (name.clone(), field(name, value))).collect::<Map<_, _>>())
}

// === impl Place ===

impl Place {
    /// Reads the location of that kind.
    pub(super) fn read(kind: &str, location: &BTreeMap<String, Value>) -> Result<Place, ArtifactError> {
        let value = location.get(kind).cloned().unwrap_or_default();
        match kind {
            "s3" => Ok(Place::S3(fields(kind, &value)?)),
            "oss" => Ok(Place::S3(Box::new(fields::<Oss>(kind, &value)?.try_into()?))),
            "gcs" => Ok(Place::Gcs(fields(kind, &value)?)),
            "azure" => Ok(Place::Azure(fields(kind, &value)?)),
            "http" => Ok(Place::Http(fields(kind, &value)?)),
            "artifactory" => {
                // The same as HTTP with a name and a password.
                let Artifactory { url, username_secret, password_secret } = fields(kind, &value)?;
                let basic = Basic { username_secret, password_secret };
                let auth = Auth { basic_auth: Some(basic), ..Auth::default() };
                Ok(Place::Http(Box::new(Http { url, auth, ..Http::default() })))
            }
            "git" => Ok(Place::Git(fields(kind, &value)?)),
            _ => Err(unsupported(kind)),
        }
    }
}

/// What is not there.
pub(super) fn unsupported(kind: &str) -> ArtifactError {
    ArtifactError::Unsupported(format!("locations of kind `{kind}` are not part of this version of dhow"))
}

impl TryFrom<Oss> for S3 {
    type Error = ArtifactError;

    fn try_from(oss: Oss) -> Result<S3, ArtifactError> {
        if oss.lifecycle_rule.is_some() {
            let what = "`oss`: lifecycleRule is not part of this version of dhow; set it for the bucket";
            return Err(ArtifactError::Unsupported(what.to_owned()));
        }
        if !oss.security_token.is_empty() {
            let what = "`oss`: securityToken is not part of this version of dhow; name it in \
                        `s3: {sessionTokenSecret: …}`";
            return Err(ArtifactError::Unsupported(what.to_owned()));
        }
        let (insecure, endpoint) = match oss.endpoint.split_once("://") {
            Some((scheme, host)) => (scheme == "http", host.to_owned()),
            None => (false, oss.endpoint),
        };
        Ok(S3 {
            endpoint,
            insecure,
            bucket: oss.bucket,
            access_key_secret: oss.access_key_secret,
            secret_key_secret: oss.secret_key_secret,
            create_bucket_if_not_present: oss.create_bucket_if_not_present.then(Value::default),
            use_sdk_creds: oss.use_sdk_creds,
            key: oss.key,
            key_format: oss.key_format,
            ..S3::default()
        })
    }
}
