//! `email.smtp` against mail servers (aiosmtpd): plain, with STARTTLS and with TLS from the first byte.
//!
//! The suite itself is `dhow_blocks::conformance::email`.

use dhow_blocks::conformance::Runtime;
use dhow_blocks::conformance::email::{self, Letter};
use dhow_blocks::email::{Content, Email, Mail};
use dhow_blocks::error::BlockError;
use dhow_providers::registry::{ComponentSpec, OpenContext, Opened, open};
use dhow_servers::{MailServer, SMTP_LOGIN, smtp};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

const TOKIO: Runtime = Runtime {
    spawn: |task| drop(tokio::spawn(task)),
    sleep: |duration| Box::pin(tokio::time::sleep(duration)),
};

/// A component for the server, spoken to like that; `more` goes before what is usual.
async fn open_mail(server: &MailServer, security: &str, more: &[(&str, &str)]) -> Arc<dyn Email> {
    let port = server.process.port().to_string();
    let welcome =
        serde_json::json!({ "welcome": { "subject": email::SUBJECT, "text": email::TEXT } }).to_string();
    let mut metadata = more.to_vec();
    metadata.extend([
        ("host", "127.0.0.1"),
        ("port", port.as_str()),
        ("security", security),
        ("from", email::SENDER),
        ("templates", &welcome),
    ]);
    if let Some(certificates) = &server.certificates {
        metadata.extend([
            ("caCert", certificates.ca.as_str()),
            ("user", SMTP_LOGIN.0),
            ("password", SMTP_LOGIN.1),
        ]);
    }
    let mut fields = BTreeMap::new();
    for (name, value) in metadata {
        fields.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    let component = ComponentSpec {
        name: "post".to_owned(),
        component_type: "email.smtp".to_owned(),
        version: "v1".to_owned(),
        metadata: fields.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
    };
    match open(component, OpenContext::default()).await.unwrap() {
        Opened::Email(email) => email,
        _ => panic!("no e-mail"),
    }
}

fn letter(message: &str) -> Letter {
    let message: Value = serde_json::from_str(message).unwrap();
    let text = |name: &str| message[name].as_str().unwrap().to_owned();
    let list = |name: &str| serde_json::from_value(message[name].clone()).unwrap();
    Letter {
        sender: text("sender"),
        recipients: list("recipients"),
        to: list("to"),
        cc: list("cc"),
        subject: text("subject"),
        text: text("text").replace("\r\n", "\n"),
        headers: list("headers"),
    }
}

fn to(to: &str) -> Mail {
    Mail { to: vec![to.to_owned()], content: Content::Text("hello".to_owned()), ..Mail::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_whatever_the_security() {
    for security in ["none", "starttls", "tls"] {
        let server = Arc::new(smtp(security).unwrap());
        let mailbox: email::Mailbox = {
            let server = Arc::clone(&server);
            Arc::new(move |id: &str| server.messages().get(id).map(|message| letter(message)))
        };
        let open = || open_mail(&server, security, &[]);
        email::suite(&format!("email.smtp {security}"), TOKIO, mailbox, open).await.assert_passed();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_refuses_says_why() {
    for security in ["none", "starttls", "tls"] {
        let mut server = smtp(security).unwrap();
        let post = open_mail(&server, security, &[]).await;
        let refused = post.send(to("refused@example.com")).await;
        let Err(BlockError::Failed { reason }) = &refused else { panic!("{security}: {refused:?}") };
        assert!(reason.contains("550") && reason.contains("no such user here"), "{reason}");
        let later = post.send(to("later@example.com")).await;
        assert!(
            matches!(&later, Err(BlockError::Unavailable { reason }) if reason.contains("450")),
            "{later:?}"
        );
        // One who is refused keeps the message from all: nobody has to guess who got it.
        let both = Mail { cc: vec!["refused@example.com".to_owned()], ..to("ada@example.com") };
        assert!(post.send(both).await.is_err());
        assert_eq!(server.messages().len(), 0, "{security}");

        server.process.kill();
        let answer = post.send(to("ada@example.com")).await;
        assert!(matches!(answer, Err(BlockError::Unavailable { .. })), "{security}: {answer:?}");
        server.process.start().unwrap();
        post.send(to("ada@example.com")).await.unwrap();
        assert_eq!(server.messages().len(), 1, "{security}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_are_wrong_without_showing() {
    for security in ["starttls", "tls"] {
        let server = smtp(security).unwrap();
        for (what, more) in [
            ("a wrong password", [("user", "ada"), ("password", "swordfish")]),
            ("an unknown user", [("user", "eve"), ("password", "swordfish")]),
            ("no login", [("user", ""), ("password", "")]),
        ] {
            let answer = open_mail(&server, security, &more).await.send(to("ada@example.com")).await;
            let Err(BlockError::Failed { reason }) = &answer else { panic!("{what}: {answer:?}") };
            assert!(reason.contains("answers 5"), "{what}: {reason}");
            assert!(!reason.contains("swordfish") && !reason.contains("c3dvcmRmaXNo"), "{what}: {reason}");
        }
        assert_eq!(server.messages().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_be_trusted_gets_nothing() {
    let server = smtp("tls").unwrap();
    let other = smtp("starttls").unwrap();
    let ca = |server: &MailServer| server.certificates.as_ref().unwrap().ca.clone();
    // Each is told to trust the authority of the other.
    for (server, security, ca) in [(&server, "tls", ca(&other)), (&other, "starttls", ca(&server))] {
        let answer = open_mail(server, security, &[("caCert", &ca)]).await.send(to("ada@example.com")).await;
        let reason = answer.unwrap_err().to_string();
        assert!(reason.contains("certificate"), "{security}: {reason}");
    }
    // Neither offers what the other does.
    let plain = smtp("none").unwrap();
    let reason = open_mail(&plain, "starttls", &[]).await.send(to("ada@example.com")).await.unwrap_err();
    assert!(reason.to_string().contains("STARTTLS"), "{reason}");
    assert!(open_mail(&plain, "tls", &[]).await.send(to("ada@example.com")).await.is_err());
    for server in [server, other, plain] {
        assert_eq!(server.messages().len(), 0);
    }
}
