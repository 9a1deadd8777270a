//! `email.smtp`: messages handed to a mail server.
//!
//! Lettre makes the message, with all that is to be encoded in headers and text; the conversation with the server is in
//! `session`. Templates are the component's:
//!
//! ```json
//! {"welcome": {"subject": "Welcome, ${name}", "text": "Your order ${order} is on its way."}}
//! ```

use super::session::{Login, Security, Server, deliver};
use crate::registry::{ComponentSpec, Open, OpenError, Provider};
use crate::tls::Tls;
use async_trait::async_trait;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use dhow_blocks::email::{Content, Email, Mail};
use dhow_blocks::error::BlockError;
use lettre::Message;
use lettre::message::Mailbox;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "email.smtp",
    aliases: &[],
    versions: &["v1"],
    fields: &[
        "host",
        "port",
        "user",
        "password",
        "security",
        "from",
        "templates",
        "caCert",
        "clientCert",
        "clientKey",
    ],
    open: Open::Email(|component, _| Box::pin(async move { open(&component) })),
};

/// Longest subject and text together, in bytes.
const MAX_BYTES: usize = 10 << 20;

/// A mail server.
struct Smtp {
    server: Server,
    /// The sender of messages that name none.
    from: Option<Mailbox>,
    templates: BTreeMap<String, Template>,
}

/// A message with gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Template {
    /// Where a message has no subject of its own.
    subject: String,
    text: String,
}

fn open(component: &ComponentSpec) -> Result<Arc<dyn Email>, OpenError> {
    let host =
        component.field(&["host"]).ok_or_else(|| component.invalid(&["host"], "given: the mail server"))?;
    let security = match component.field(&["security"]).map(str::to_ascii_lowercase).as_deref() {
        None | Some("starttls") => Security::StartTls,
        Some("tls") => Security::Tls,
        Some("none") => Security::None,
        Some(_) => return Err(component.invalid(&["security"], "starttls, tls or none")),
    };
    let usual = match security {
        Security::Tls => 465,
        Security::StartTls => 587,
        Security::None => 25,
    };
    let port = component.number(&["port"], u16::MAX.into(), "a port")?;
    let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(usual);
    let login = match (component.field(&["user"]), component.field(&["password"])) {
        (Some(user), Some(password)) => Some(Login { user: user.to_owned(), password: password.to_owned() }),
        (None, None) => None,
        _ => return Err(component.invalid(&["password"], "given together with user")),
    };
    if login.is_some() && security == Security::None {
        tracing::warn!(
            component = component.name,
            "security none: the password goes over the network as it is"
        );
    }
    let tls = Arc::new(Tls::of(component)?.client_config().map_err(|error| component.backend(error))?);
    let from = component.field(&["from"]).map(|from| {
        let address = "an address such as shop@example.com or Shop <shop@example.com>";
        from.parse::<Mailbox>().map_err(|_| component.invalid(&["from"], address))
    });
    let templates = component.field(&["templates"]).map(|text| {
        let expected = "a JSON object of templates, each a text or an object of subject and text";
        templates(text).ok_or_else(|| component.invalid(&["templates"], expected))
    });
    Ok(Arc::new(Smtp {
        server: Server { host: host.to_owned(), port, security, login, tls },
        from: from.transpose()?,
        templates: templates.transpose()?.unwrap_or_default(),
    }))
}

fn templates(text: &str) -> Option<BTreeMap<String, Template>> {
    let templates: Map<String, Value> = serde_json::from_str(text).ok()?;
    let templates = templates.into_iter().map(|(id, template)| {
        let field = |fields: &Map<String, Value>, name: &str| match fields.get(name) {
            None => Some(String::new()),
            Some(text) => text.as_str().map(str::to_owned),
        };
        let template = match template {
            Value::String(text) => Template { text, ..Template::default() },
            Value::Object(fields) => {
                Template { subject: field(&fields, "subject")?, text: field(&fields, "text")? }
            }
            _ => return None,
        };
        Some((id, template))
    });
    templates.collect()
}

/// The text with `${name}` replaced. A gap that no parameter fills is an error.
fn fill(text: &str, parameters: &BTreeMap<String, String>) -> Result<String, BlockError> {
    let (mut filled, mut rest) = (String::new(), text);
    while let Some((before, behind)) = rest.split_once("${") {
        filled.push_str(before);
        let Some((name, behind)) = behind.split_once('}') else {
            filled.push_str("${");
            rest = behind;
            continue;
        };
        let value = parameters.get(name).ok_or_else(|| {
            BlockError::invalid(format!("the template has a gap {name:?}, and no parameter fills it"))
        })?;
        filled.push_str(value);
        rest = behind;
        if filled.len() > MAX_BYTES {
            return Err(BlockError::invalid(format!("the text has more than {MAX_BYTES} bytes")));
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

fn address(text: &str) -> Result<Mailbox, BlockError> {
    text.trim().parse().map_err(|_| BlockError::invalid(format!("{text:?} is not an e-mail address")))
}

/// A subject in which a reader would see an encoded word (RFC 2047 section 2) where there is none, encoded whole: lettre
/// leaves it as it is.
fn encoded(subject: &str) -> Option<HeaderValue> {
    /// Bytes of a word, which has at most 75 characters with all that surrounds it.
    const WORD: usize = 42;
    if !subject.contains("=?") {
        return None;
    }
    let (mut words, mut rest) = (Vec::new(), subject);
    while !rest.is_empty() {
        let (word, behind) = rest.split_at(rest.floor_char_boundary(WORD));
        words.push(format!("=?utf-8?b?{}?=", BASE64_STANDARD.encode(word)));
        rest = behind;
    }
    let name = HeaderName::new_from_ascii_str("Subject");
    Some(HeaderValue::dangerous_new_pre_encoded(name, subject.to_owned(), words.join("\r\n ")))
}

// === impl Smtp ===

impl Smtp {
    fn message(&self, mail: Mail) -> Result<(Message, String), BlockError> {
        let Mail { from, to, cc, subject, content } = mail;
        let (subject, text) = match content {
            Content::Text(text) => (subject, text),
            Content::Template { id, parameters } => {
                let template = self.templates.get(&id);
                let template =
                    template.ok_or_else(|| BlockError::invalid(format!("there is no template {id:?}")))?;
                let own = if subject.is_empty() { fill(&template.subject, &parameters)? } else { subject };
                (own, fill(&template.text, &parameters)?)
            }
        };
        if subject.len() + text.len() > MAX_BYTES {
            return Err(BlockError::invalid(format!("the message has more than {MAX_BYTES} bytes")));
        }
        let from = match (from.as_str(), &self.from) {
            ("", Some(from)) => from.clone(),
            ("", None) => {
                return Err(BlockError::invalid("no sender is named, and the component has no from"));
            }
            (from, _) => address(from)?,
        };
        let id = format!("<{}@{}>", crate::uuid::random(), from.email.domain());
        // A subject is one line.
        let subject = subject.replace(['\r', '\n'], " ");
        let message = Message::builder().from(from).message_id(Some(id.clone()));
        let mut message = match encoded(&subject) {
            Some(header) => message.raw_header(header),
            None => message.subject(subject),
        };
        for to in to {
            message = message.to(address(&to)?);
        }
        for cc in cc {
            message = message.cc(address(&cc)?);
        }
        let message = message.header(ContentType::TEXT_PLAIN).body(text);
        Ok((message.map_err(|error| BlockError::invalid(error.to_string()))?, id))
    }
}

#[async_trait]
impl Email for Smtp {
    async fn send(&self, mail: Mail) -> Result<String, BlockError> {
        let (message, id) = self.message(mail)?;
        deliver(&self.server, &message).await?;
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled() {
        let parameters =
            BTreeMap::from([("name".to_owned(), "Ada ${x}".to_owned()), ("n".to_owned(), "7".to_owned())]);
        for (text, expected) in [
            ("hello", Some("hello")),
            ("${name}: ${n}${n}", Some("Ada ${x}: 77")),
            ("$name ${", Some("$name ${")),
            ("${other}", None),
        ] {
            assert_eq!(fill(text, &parameters).ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (metadata, expected) in [
            (vec![], "host"),
            (vec![("host", "h"), ("security", "maybe")], "security"),
            (vec![("host", "h"), ("user", "u")], "password"),
            (vec![("host", "h"), ("from", "nobody")], "from"),
            (vec![("host", "h"), ("templates", "[]")], "templates"),
            (vec![("host", "h"), ("port", "99999")], "port"),
        ] {
            let metadata: Vec<_> =
                metadata.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let error =
                open(&ComponentSpec { metadata, ..ComponentSpec::default() }).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
