//! A registry that does what a test tells it to: plain HTTP over plain sockets, so that an answer can promise more than
//! it gives, and break off wherever that is wanted.

use dhow_artifacts::digest::Digest;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// How many bytes are promised, where it is not as many as come.
    promised: Option<usize>,
}

/// A registry on a port of its own, until the process ends.
pub(crate) struct Hostile {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

/// What an honest registry would answer, by target.
#[derive(Clone, Default)]
pub(crate) struct Content(BTreeMap<String, Answer>);

// === impl Hostile ===

impl Hostile {
    /// Answers with what `answer` makes of a request; the number counts requests for the same target.
    pub(crate) fn start(answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Hostile {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, kept) = (Arc::new(answer), Arc::clone(&seen));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&kept));
                thread::spawn(move || serve(&stream, &*answer, &seen));
            }
        });
        Hostile { addr, seen }
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// A reference to what is here.
    pub(crate) fn reference(&self, rest: &str) -> String {
        format!("oci://{}/{rest}", self.addr)
    }
}

fn serve(stream: &TcpStream, answer: &dyn Fn(&Request, usize) -> Answer, seen: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream);
    let Some(request) = read(&mut reader) else { return };
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.iter().filter(|one| one.target == request.target && one.method == request.method).count()
    };
    let answer = answer(&request, number);
    if answer.status == 0 {
        return;
    }
    let length = answer.promised.unwrap_or(answer.body.len());
    let mut head =
        format!("HTTP/1.1 {} x\r\ncontent-length: {length}\r\nconnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut stream = stream;
    let _ = stream.write_all(head.as_bytes());
    if request.method != "HEAD" {
        // Whoever has had enough hangs up.
        let _ = stream.write_all(&answer.body);
    }
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_end(&mut Vec::new()).ok()?;
    Some(Request { method, target, headers })
}

// === impl Request ===

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Where the rest that is asked for begins.
    pub(crate) fn range(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
    }

    pub(crate) fn is_blob(&self) -> bool {
        self.target.contains("/blobs/")
    }
}

// === impl Answer ===

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, headers: Vec::new(), body: body.into(), promised: None }
    }

    /// Hangs up without a word.
    pub(crate) fn silence() -> Answer {
        Answer::new(0, "")
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Promises as many bytes as there are, and sends so many.
    pub(crate) fn cut(mut self, at: usize) -> Answer {
        self.promised = Some(self.body.len());
        self.body.truncate(at);
        self
    }

    /// The rest from there, as a registry that resumes sends it.
    pub(crate) fn from(mut self, begin: usize) -> Answer {
        let all = self.body.len();
        self.body.drain(..begin);
        self.status = 206;
        self.header("content-range", format!("bytes {begin}-{}/{all}", all - 1))
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }
}

// === impl Content ===

impl Content {
    /// An artifact with this layer: under the tag, and all its parts under their digests.
    pub(crate) fn artifact(repository: &str, tag: &str, layer: &[u8]) -> Content {
        let mut content = Content::default();
        let config = br#"{"architecture": "wasm", "os": "wasip1"}"#;
        let (config, layer) = (content.blob(repository, config), content.blob(repository, layer));
        let manifest = format!(
            r#"{{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {{"mediaType": "application/vnd.wasm.config.v0+json", {config}}},
            "layers": [{{"mediaType": "application/wasm", {layer}}}]}}"#
        );
        content.manifest(repository, tag, manifest.as_bytes());
        content
    }

    /// Adds content; the answer is the part of a descriptor that names it.
    pub(crate) fn blob(&mut self, repository: &str, bytes: &[u8]) -> String {
        let digest = Digest::sha256(bytes);
        self.0.insert(format!("/v2/{repository}/blobs/{digest}"), Answer::new(200, bytes));
        format!(r#""digest": "{digest}", "size": {}"#, bytes.len())
    }

    /// Adds a manifest or index, under its tag and its digest.
    pub(crate) fn manifest(&mut self, repository: &str, tag: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let answer = Answer::new(200, bytes).header("docker-content-digest", digest.to_string());
        for name in [tag.to_owned(), digest.to_string()] {
            self.0.insert(format!("/v2/{repository}/manifests/{name}"), answer.clone());
        }
        digest
    }

    /// Adds an answer.
    pub(crate) fn set(&mut self, target: String, answer: Answer) {
        self.0.insert(target, answer);
    }

    /// What an honest registry answers.
    pub(crate) fn answer(&self, request: &Request) -> Answer {
        self.0.get(&request.target).cloned().unwrap_or_else(|| Answer::new(404, "{}"))
    }
}
