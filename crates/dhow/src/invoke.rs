//! `dhow invoke`: one request to an app of a running host, past routes and ports.

use crate::client;
use crate::error::{Context, Error};
use bytes::Bytes;
use clap::Args;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use std::io::{Read, Write};
use std::process::ExitCode;

/// Send a request to an app of a running host and print the answer
#[derive(Args)]
#[command(after_help = "\
The app needs no route for this, and no port is involved. The exit code is 1 when the answer has a
status of 400 or above.

EXAMPLES
  dhow invoke front
  dhow invoke front /books?page=2 -i
  dhow invoke orders /new -d '{\"book\": 7}'       POST, and the content type is that of JSON
  dhow invoke orders /import -d @orders.csv -H 'content-type: text/csv'")]
pub(crate) struct Invoke {
    /// The app
    #[arg(required_unless_present = "app_id")]
    app: Option<String>,
    /// Path and query [default: /]
    path: Option<String>,
    /// The app, in the words of `dapr invoke`
    #[arg(long, short = 'a', value_name = "ID", conflicts_with_all = ["app", "path"])]
    app_id: Option<String>,
    /// The path, in the words of `dapr invoke`
    #[arg(long, short = 'm', value_name = "PATH", requires = "app_id")]
    method: Option<String>,
    /// HTTP method; GET, or POST if there are data or the app is named with --app-id
    #[arg(long, short = 'X', short_alias = 'v', value_name = "VERB")]
    verb: Option<Method>,
    /// Body: text, @FILE, or - (also @-) for standard input
    #[arg(long, short, value_name = "DATA|@FILE|-")]
    data: Option<String>,
    /// A file with the body
    #[arg(long, short = 'f', value_name = "FILE", conflicts_with = "data")]
    data_file: Option<String>,
    /// Header (repeatable)
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// Print status and headers before the body
    #[arg(long, short)]
    include: bool,
    /// Which host, by name or pid (see `dhow ps`); needed only if several have the app
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Print status, headers and body as JSON
    #[arg(long, conflicts_with = "include")]
    json: bool,
}

pub(crate) fn execute(invoke: &Invoke) -> Result<ExitCode, Error> {
    client::runtime()?.block_on(invoke.send())
}

// === impl Invoke ===

impl Invoke {
    fn app(&self) -> &str {
        self.app.as_deref().or(self.app_id.as_deref()).unwrap_or_default()
    }

    async fn send(&self) -> Result<ExitCode, Error> {
        let request = self.request()?;
        let host = client::host_of(self.app(), self.host.as_deref()).await?;
        let answer = client::send(&host, request).await?;
        let status = answer.status();
        // Said by the host and not by the app.
        if answer.headers().contains_key("dhow-error") {
            let body = answer.into_body().collect().await?.to_bytes();
            return Err(Error::new(String::from_utf8_lossy(&body).trim()));
        }
        if self.json {
            print_json(answer).await?
        } else {
            self.print(answer).await?
        }
        Ok(if status.as_u16() >= 400 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, Error> {
        let path = self.path.as_deref().or(self.method.as_deref()).unwrap_or("/");
        let slash = if path.starts_with('/') { "" } else { "/" };
        let uri = format!("/v1/invoke/{}{slash}{path}", client::encode(self.app()));
        let uri: Uri = uri.parse().map_err(|error| {
            Error::usage(format!("{path:?} is no path: {error}; write special characters as %XX"))
        })?;
        let data = match &self.data_file {
            Some(file) => Some(data(&format!("@{file}"))?),
            None => self.data.as_deref().map(data).transpose()?,
        };
        let method = match (&self.verb, &data) {
            (Some(method), _) => method.clone(),
            (None, Some(_)) => Method::POST,
            (None, None) if self.app_id.is_some() => Method::POST,
            (None, None) => Method::GET,
        };
        let mut request = Request::builder().method(method).uri(uri).body(Full::default())?;
        let headers = request.headers_mut();
        for (name, value) in &self.header {
            headers.append(name, value.clone());
        }
        if !headers.contains_key(HOST) {
            headers.insert(HOST, HeaderValue::from_static("localhost"));
        }
        if let Some(data) = data {
            let is_json = || serde_json::from_slice::<&serde_json::value::RawValue>(&data).is_ok();
            if !headers.contains_key(CONTENT_TYPE) && is_json() {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
            *request.body_mut() = Full::new(data);
        }
        Ok(request)
    }

    async fn print(&self, answer: Response<Incoming>) -> Result<(), Error> {
        let mut out = std::io::stdout().lock();
        if self.include {
            writeln!(out, "HTTP {}", answer.status())?;
            for (name, value) in answer.headers() {
                writeln!(out, "{name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
            }
            writeln!(out)?;
        }
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            let frame =
                frame.context(|| format!("app {:?} broke off in the middle of its answer", self.app()))?;
            if let Ok(data) = frame.into_data() {
                out.write_all(&data)?;
                out.flush()?;
            }
        }
        Ok(())
    }
}

async fn print_json(answer: Response<Incoming>) -> Result<(), Error> {
    let (head, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    let mut value = json!({ "status": head.status.as_u16(), "headers": headers(&head.headers) });
    match std::str::from_utf8(&body) {
        Ok(text) => value["body"] = text.into(),
        Err(_) => value["bodyBytes"] = body.as_ref().into(),
    }
    writeln!(std::io::stdout().lock(), "{value:#}")?;
    Ok(())
}

/// Several headers of one name come as one list.
fn headers(headers: &HeaderMap) -> Map<String, Value> {
    let values = |name| {
        let values = headers.get_all(name).iter();
        values.map(|value| Value::from(String::from_utf8_lossy(value.as_bytes()))).collect::<Value>()
    };
    headers.keys().map(|name| (name.as_str().to_owned(), values(name))).collect()
}

fn data(text: &str) -> Result<Bytes, Error> {
    match text.strip_prefix('@').unwrap_or(text) {
        "-" => {
            let mut data = Vec::new();
            std::io::stdin().read_to_end(&mut data).context(|| "cannot read standard input".to_owned())?;
            Ok(data.into())
        }
        file if text.starts_with('@') => {
            Ok(std::fs::read(file).context(|| format!("cannot read {file}"))?.into())
        }
        text => Ok(text.to_owned().into()),
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
    let name = name.trim().parse().map_err(|_| format!("{name:?} cannot be the name of a header"))?;
    let value = value
        .trim()
        .parse()
        .map_err(|_| format!("the value of {name} has characters that a header cannot have"))?;
    Ok((name, value))
}
