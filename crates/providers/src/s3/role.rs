//! Keys of a role, which last for a while: `AssumeRole` of AWS's Security Token Service.
//!
//! Signed in headers (AWS Signature Version 4), for rusty-s3 signs for S3 alone.
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>

use super::{Account, MAX_ANSWER, content, refusal};
use dhow_blocks::error::BlockError;
use dhow_blocks::invoke::Body;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use jiff::Timestamp;
use ring::{digest, hmac};
use std::time::{Duration, SystemTime};
use url::Url;

/// An answer has to come within this time.
const DEADLINE: Duration = Duration::from_secs(30);

/// Names whoever uses the role in AWS's logs.
const SESSION: &str = "dhow";

const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// Keys of a role.
pub struct Assumed {
    /// Access key, secret key and token of the session.
    pub keys: (String, String, Option<String>),
    /// When they are good no more.
    pub until: SystemTime,
}

/// What a request is signed with.
struct Signer<'a> {
    key: &'a str,
    secret: &'a str,
    token: Option<&'a str>,
    region: &'a str,
    now: Timestamp,
}

// === impl Account ===

impl Account {
    /// Asks for keys of the role, with the account's own. The server is AWS's in the account's region, or the one that
    /// `AWS_ENDPOINT_URL_STS` names, as for AWS's tools. The error shows no key.
    pub async fn assume(&self, role_arn: &str) -> Result<Assumed, BlockError> {
        let server = std::env::var("AWS_ENDPOINT_URL_STS").ok().filter(|url| !url.is_empty());
        let server = server.unwrap_or_else(|| format!("https://sts.{}.amazonaws.com", self.region()));
        let url = Url::parse(&server)
            .map_err(|error| BlockError::invalid(format!("AWS_ENDPOINT_URL_STS {server:?}: {error}")))?;
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("Action", "AssumeRole"), ("Version", "2011-06-15")])
            .extend_pairs([("RoleArn", role_arn), ("RoleSessionName", SESSION)])
            .finish();
        let signer = Signer {
            key: self.credentials.key(),
            secret: self.credentials.secret(),
            token: self.credentials.token(),
            region: self.region(),
            now: Timestamp::now(),
        };
        let request = signer.request(&url, body).ok_or_else(|| BlockError::invalid("a key is no header"))?;
        let answer = self.client.exchange(request, MAX_ANSWER, DEADLINE).await?;
        if !answer.status().is_success() {
            return Err(match refusal(answer.status(), answer.body()) {
                BlockError::Unavailable { reason } => {
                    BlockError::unavailable(format!("{role_arn}: {reason}"))
                }
                error => BlockError::failed(format!("{role_arn}: {error}")),
            });
        }
        let text = String::from_utf8_lossy(answer.body());
        let field = |name: &str| {
            let wrong = || BlockError::failed(format!("STS answers without {name}"));
            content(&text, name).map(str::to_owned).ok_or_else(wrong)
        };
        let until: Timestamp = field("Expiration")?
            .parse()
            .map_err(|_| BlockError::failed("STS answers with a time that is none"))?;
        let keys = (field("AccessKeyId")?, field("SecretAccessKey")?, Some(field("SessionToken")?));
        Ok(Assumed { keys, until: until.into() })
    }
}

// === impl Signer ===

impl Signer<'_> {
    /// A form, posted; none if a key cannot stand in a header.
    fn request(&self, url: &Url, body: String) -> Option<Request<Body>> {
        let host = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str()?),
            None => url.host_str()?.to_owned(),
        };
        let time = self.now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = time.get(..8)?;
        let scope = format!("{day}/{}/sts/aws4_request", self.region);
        let mut headers = vec![("content-type", FORM), ("host", &host), ("x-amz-date", &time)];
        headers.extend(self.token.map(|token| ("x-amz-security-token", token)));
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let canonical = format!("POST\n{}\n\n{lines}\n{names}\n{}", url.path(), sha256(body.as_bytes()));
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in [day, self.region, "sts", "aws4_request"] {
            key = hmac_sha256(&key, part.as_bytes());
        }
        let signature = hex(&hmac_sha256(&key, text.as_bytes()));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            self.key
        );
        let secret = |value: &str| {
            let mut value = HeaderValue::try_from(value).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        let mut request = Request::post(url.as_str())
            .header(CONTENT_TYPE, FORM)
            .header(HOST, &host)
            .header("x-amz-date", &time)
            .header(AUTHORIZATION, secret(&authorization)?);
        if let Some(token) = self.token {
            request = request.header("x-amz-security-token", secret(token)?);
        }
        request.body(bytes::Bytes::from(body).into()).ok()
    }
}

fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
