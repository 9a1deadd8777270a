//! A module of the first Wascap ABI, written by hand: its crates are gone. Requests are those of `wapc-waxosuit`, of
//! which this one has `get`, `set`, `add`, `push`, `range`, `publish` and the echo; `/throw` gives up.

use prost::Message;
use std::cell::Cell;
use std::collections::HashMap;

#[link(wasm_import_module = "wascap")]
unsafe extern "C" {
    fn __throw(at: *const u8, length: usize);
    fn __console_log(at: *const u8, length: usize);
    fn __host_call(at: *const u8, length: usize, answer: *mut u8) -> usize;
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Command {
    #[prost(string, tag = "1")]
    source: String,
    #[prost(string, tag = "2")]
    target_cap: String,
    #[prost(message, optional, tag = "10")]
    payload: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Failure {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    description: String,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(bool, tag = "1")]
    success: bool,
    #[prost(message, optional, tag = "2")]
    error: Option<Failure>,
    #[prost(message, optional, tag = "10")]
    payload: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, tag = "1")]
    method: String,
    #[prost(string, tag = "2")]
    path: String,
    #[prost(string, tag = "3")]
    query_string: String,
    #[prost(map = "string, string", tag = "4")]
    header: HashMap<String, String>,
    #[prost(bytes = "vec", tag = "5")]
    body: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(uint32, tag = "1")]
    status_code: u32,
    #[prost(string, tag = "2")]
    status: String,
    #[prost(map = "string, string", tag = "3")]
    header: HashMap<String, String>,
    #[prost(bytes = "vec", tag = "4")]
    body: Vec<u8>,
}

/// Key and text, of all requests that have no more.
#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// Key and number; of ranges two.
#[derive(Clone, PartialEq, Message)]
struct Numbers {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(int32, tag = "2")]
    value: i32,
    #[prost(int32, tag = "3")]
    stop: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Found {
    #[prost(string, tag = "1")]
    value: String,
    #[prost(bool, tag = "2")]
    exists: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Number {
    #[prost(int32, tag = "1")]
    value: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Texts {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct BrokerMessage {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(string, tag = "2")]
    reply_to: String,
    #[prost(bytes = "vec", tag = "3")]
    body: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Publish {
    #[prost(message, optional, tag = "2")]
    message: Option<BrokerMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct Deliver {
    #[prost(message, optional, tag = "1")]
    message: Option<BrokerMessage>,
}

thread_local! {
    /// The words that host and module share.
    static SHARED: Cell<[u32; 16]> = const { Cell::new([0; 16]) };
}

#[unsafe(no_mangle)]
pub extern "C" fn __wascap_global_argument_ptr() -> *mut u8 {
    SHARED.with(|shared| shared.as_ptr().cast())
}

#[unsafe(no_mangle)]
pub extern "C" fn __wascap_malloc(length: usize) -> *mut u8 {
    Vec::with_capacity(length.max(1)).leak().as_mut_ptr()
}

/// # Safety
/// The address and length must be those of `__wascap_malloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wascap_free(_at: *mut u8, _length: usize) {}

/// # Safety
/// The address and length must be those of a buffer that was handed over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __guest_call(at: *const u8, length: usize) -> usize {
    let command = Command::decode(unsafe { std::slice::from_raw_parts(at, length) }).unwrap_or_default();
    let event = match handle(command.payload.unwrap_or_default()) {
        Ok(payload) => Event { success: true, payload, error: None },
        Err(description) => {
            Event { success: false, payload: None, error: Some(Failure { code: 500, description }) }
        }
    };
    let bytes = event.encode_to_vec().leak();
    SHARED.with(|shared| {
        let mut words = shared.get();
        words[0] = bytes.as_ptr() as u32;
        shared.set(words);
    });
    bytes.len()
}

fn handle(payload: Any) -> Result<Option<Any>, String> {
    match payload.type_url.as_str() {
        "type.wascap.io/http.Request" => {
            let request = Request::decode(&*payload.value).map_err(|error| error.to_string())?;
            let body = answer(&request).unwrap_or_else(|error| format!("error: {error}")).into_bytes();
            let header = [("x-actor".to_owned(), "wascap".to_owned())].into();
            let response = Response { status_code: 200, status: "OK".to_owned(), header, body };
            Ok(Some(any("http.Response", &response)))
        }
        "type.wascap.io/messaging.DeliverMessage" => {
            let delivered = Deliver::decode(&*payload.value).map_err(|error| error.to_string())?;
            let message = delivered.message.unwrap_or_default();
            let value = format!("{} {}", message.subject, String::from_utf8_lossy(&message.body));
            call("keyvalue", "ListPushRequest", &Pair { key: "messages".to_owned(), value })?;
            Ok(None)
        }
        "type.wascap.io/core.HealthRequest" => Ok(None),
        other => Err(format!("{other} is not known")),
    }
}

fn answer(request: &Request) -> Result<String, String> {
    let segments: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
    let read = |any: Any| any.value;
    Ok(match segments.as_slice() {
        ["get", key] => {
            let found = read(call("keyvalue", "GetRequest", &pair(key, ""))?);
            let found = Found::decode(&*found).map_err(|error| error.to_string())?;
            format!("{:?}", found.exists.then_some(found.value))
        }
        ["set", key, value] => {
            call("keyvalue", "SetRequest", &pair(key, value)).map(|_| "done".to_owned())?
        }
        ["add", key, value] => {
            let value = value.parse().map_err(|_| "no number")?;
            let sum =
                read(call("keyvalue", "AddRequest", &Numbers { key: (*key).to_owned(), value, stop: 0 })?);
            Number::decode(&*sum).map_err(|error| error.to_string())?.value.to_string()
        }
        ["push", key, value] => {
            let count = read(call("keyvalue", "ListPushRequest", &pair(key, value))?);
            Number::decode(&*count).map_err(|error| error.to_string())?.value.to_string()
        }
        ["range", key] => {
            let all = Numbers { key: (*key).to_owned(), value: 0, stop: -1 };
            let found = read(call("keyvalue", "ListRangeRequest", &all)?);
            Texts::decode(&*found).map_err(|error| error.to_string())?.values.join(",")
        }
        ["publish", subject, text] => {
            let (subject, body) = ((*subject).to_owned(), text.as_bytes().to_vec());
            let message = Some(BrokerMessage { subject, reply_to: String::new(), body });
            call("messaging", "PublishMessage", &Publish { message }).map(|_| "done".to_owned())?
        }
        ["unknown"] => call("keyvalue", "Nothing", &pair("", "")).map(|_| "done".to_owned())?,
        ["throw"] => {
            let text = "thrown";
            unsafe { __throw(text.as_ptr(), text.len()) };
            text.to_owned()
        }
        _ => {
            unsafe { __console_log(request.path.as_ptr(), request.path.len()) };
            let body = String::from_utf8_lossy(&request.body);
            format!("{} {} {} {body}", request.method, request.path, request.query_string)
        }
    })
}

fn pair(key: &str, value: &str) -> Pair {
    Pair { key: key.to_owned(), value: value.to_owned() }
}

fn any(kind: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.wascap.io/{kind}"), value: message.encode_to_vec() }
}

fn call(package: &str, kind: &str, message: &impl Message) -> Result<Any, String> {
    let command = Command {
        source: "guest".to_owned(),
        target_cap: format!("wascap:{package}"),
        payload: Some(any(&format!("{package}.{kind}"), message)),
    };
    let command = command.encode_to_vec();
    let mut buffer = vec![0_u8; 64 << 10];
    let length = unsafe { __host_call(command.as_ptr(), command.len(), buffer.as_mut_ptr()) };
    let bytes = buffer.get(..length).ok_or("an answer that has no room")?;
    let event = Event::decode(bytes).map_err(|error| error.to_string())?;
    match event {
        Event { success: true, payload, .. } => Ok(payload.unwrap_or_default()),
        Event { error, .. } => Err(error.unwrap_or_default().description),
    }
}
