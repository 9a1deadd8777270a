//! What every provider of e-mail promises, as cases against [`Email`].
//!
//! The block has no way to read mail, so the caller says what arrived.

use super::{Case, CaseResult, Failure, Report, Runtime, cases, ensure, ensure_eq};
use crate::email::{Content, Email, MAX_RECIPIENTS, Mail};
use crate::error::BlockError;
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The sender of messages that name none, as the component has to be told.
pub const SENDER: &str = "Shop <shop@example.com>";

/// The subject of the template `welcome`, which the component has to know.
pub const SUBJECT: &str = "Welcome, ${name}";

/// The text of the template `welcome`.
pub const TEXT: &str = "Order ${order} is on its way.";

/// A message that arrived, as a reader of mail understands it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Letter {
    /// Who sent it, of the envelope.
    pub sender: String,
    /// Who got it, of the envelope.
    pub recipients: Vec<String>,
    /// Addresses that stand under To, without names.
    pub to: Vec<String>,
    /// Addresses that stand under Cc, without names.
    pub cc: Vec<String>,
    /// What stands over it.
    pub subject: String,
    /// What stands in it, with lines that end in LF.
    pub text: String,
    /// Names of its headers in lower case.
    pub headers: Vec<String>,
}

/// Finds the message of this id among those that arrived.
pub type Mailbox = Arc<dyn Fn(&str) -> Option<Letter> + Send + Sync>;

/// What a case works with.
#[derive(Clone)]
struct Context {
    email: Arc<dyn Email>,
    mailbox: Mailbox,
    runtime: Runtime,
}

const CASES: &[Case<Context>] = cases! {
    "a message arrives as it was meant" => arrives,
    "everybody gets it, and nobody else" => everybody,
    "who is named as its sender sends it" => named,
    "a template's gaps are filled" => template,
    "headers cannot be added" => injected,
    "what cannot be sent is refused" => refused,
    "each message has an id of its own" => ids,
};

/// Runs every case, each on a provider of its own from `open`, and reports which promises are kept.
///
/// `open` may return the same backend each time. It has to know [`SENDER`] and the template, and takes mail for anybody
/// at `example.com`.
pub async fn suite<F, S>(provider: &str, runtime: Runtime, mailbox: Mailbox, open: F) -> Report
where
    F: Fn() -> S,
    S: Future<Output = Arc<dyn Email>>,
{
    let open = |_| {
        let (opening, mailbox) = (open(), Arc::clone(&mailbox));
        async move { Context { email: opening.await, mailbox, runtime } }
    };
    let close = |context: Context| Box::pin(async move { context.email.close().await }) as _;
    runtime.run(provider, CASES, open, close).await
}

fn mail(subject: &str, text: &str) -> Mail {
    Mail {
        to: vec!["Ada <ada@example.com>".to_owned()],
        subject: subject.to_owned(),
        content: Content::Text(text.to_owned()),
        ..Mail::default()
    }
}

async fn arrives(context: Context) -> CaseResult {
    let long = "word ".repeat(2000);
    for (subject, text) in [
        ("hello", "hello"),
        ("", ""),
        ("Grüße 🐪 and =?utf-8?q?more?=", "Grüße 🐪\n"),
        ("dots", "a line\n.\n.. with dots\n.\n"),
        ("a subject that is long, long, long, long, long, long, long, long, long, long, long, long", &long),
        ("From", "From the beginning\n--\nof a line\n=20\n"),
    ] {
        let letter = context.send(mail(subject, text)).await?;
        ensure_eq!(letter.subject, subject, "subject");
        // A message ends with a line, whether or not its text did.
        ensure_eq!(letter.text.trim_end_matches('\n'), text.trim_end_matches('\n'), "text of {subject:?}");
        ensure_eq!(
            (letter.sender.as_str(), letter.to),
            ("shop@example.com", vec!["ada@example.com".to_owned()]),
            "sender and receiver"
        );
    }
    Ok(())
}

async fn everybody(context: Context) -> CaseResult {
    let many: Vec<String> =
        (0..MAX_RECIPIENTS - 2).map(|number| format!("reader{number}@example.com")).collect();
    let to = [&["ada@example.com".to_owned()][..], &many].concat();
    let cc = vec!["\"Bob, the other\" <bob@example.com>".to_owned()];
    let letter = context.send(Mail { to: to.clone(), cc, ..mail("to many", "hello") }).await?;
    ensure_eq!(letter.to, to, "To");
    ensure_eq!(letter.cc, vec!["bob@example.com".to_owned()], "Cc");
    let expected: BTreeSet<String> = to.into_iter().chain(letter.cc).collect();
    ensure_eq!(letter.recipients.len(), expected.len(), "recipients");
    ensure_eq!(letter.recipients.into_iter().collect::<BTreeSet<_>>(), expected, "recipients");
    Ok(())
}

async fn named(context: Context) -> CaseResult {
    let letter = context.send(Mail { from: "eve@example.com".to_owned(), ..mail("from", "hello") }).await?;
    ensure_eq!(letter.sender, "eve@example.com", "sender");
    Ok(())
}

async fn template(context: Context) -> CaseResult {
    let content = |name: &str| Content::Template {
        id: "welcome".to_owned(),
        parameters: [("name", name), ("order", "77 & more")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
    };
    let letter = context.send(Mail { content: content("Ada"), ..mail("", "") }).await?;
    ensure_eq!(letter.subject, "Welcome, Ada", "subject of the template");
    ensure_eq!(letter.text.trim_end(), "Order 77 & more is on its way.", "text of the template");
    let letter = context.send(Mail { content: content("Ada"), ..mail("my own", "") }).await?;
    ensure_eq!(letter.subject, "my own", "subject of the message");
    Ok(())
}

async fn injected(context: Context) -> CaseResult {
    let letter = context.send(mail("hello\r\nBcc: eve@example.com\nX-More: 1", "hello")).await?;
    ensure_eq!(letter.recipients, vec!["ada@example.com".to_owned()], "recipients");
    let is_there = letter.headers.iter().any(|name| name == "bcc" || name == "x-more");
    ensure!(!is_there, "a header was added: {:?}", letter.headers);
    Ok(())
}

async fn refused(context: Context) -> CaseResult {
    let template = |id: &str| Content::Template { id: id.to_owned(), parameters: Default::default() };
    let to = |to: &str| Mail { to: vec![to.to_owned()], ..mail("x", "x") };
    for (what, mail) in [
        ("nobody", Mail { to: Vec::new(), ..mail("x", "x") }),
        ("no address", to("nobody")),
        ("an empty address", to("")),
        ("two addresses in one", to("ada@example.com, eve@example.com")),
        ("a line break in an address", to("a\r\nRCPT TO:<eve@example.com>@example.com")),
        ("a sender that is none", Mail { from: "nobody".to_owned(), ..mail("x", "x") }),
        ("a template that is not there", Mail { content: template("nope"), ..mail("x", "x") }),
        ("a template with a gap", Mail { content: template("welcome"), ..mail("x", "x") }),
    ] {
        let answer = context.email.send(mail).await;
        ensure!(matches!(answer, Err(BlockError::Invalid { .. })), "{what} was answered {answer:?}");
    }
    Ok(())
}

async fn ids(context: Context) -> CaseResult {
    const MESSAGES: usize = 20;
    let tasks = (0..MESSAGES).map(|number| {
        let context = context.clone();
        Box::pin(async move {
            let id = context.email.send(mail("hello", &format!("message {number}"))).await?;
            Ok((number, id))
        }) as BoxFuture<'static, Result<(usize, String), BlockError>>
    });
    let mut ids = BTreeSet::new();
    for sent in context.runtime.parallel(tasks.collect()).await? {
        let (number, id) = sent?;
        let text = context.letter(&id)?.text;
        ensure_eq!(text.trim_end(), format!("message {number}"), "text of the message {id:?}");
        ids.insert(id);
    }
    ensure_eq!(ids.len(), MESSAGES, "different ids");
    Ok(())
}

// === impl Context ===

impl Context {
    async fn send(&self, mail: Mail) -> Result<Letter, Failure> {
        let id = self.email.send(mail).await?;
        self.letter(&id)
    }

    fn letter(&self, id: &str) -> Result<Letter, Failure> {
        (self.mailbox)(id).ok_or_else(|| Failure::new(format!("no message with the id {id:?} arrived")))
    }
}
