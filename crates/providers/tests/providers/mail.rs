//! `email.smtp` against a mail server (aiosmtpd).

use dhow_blocks::email::{Content, Email, Mail};
use dhow_blocks::error::BlockError;
use dhow_providers::registry::{ComponentSpec, OpenContext, Opened, open};
use dhow_servers::Process;
use std::collections::BTreeMap;
use std::sync::Arc;

async fn open_mail(server: &Process, more: &[(&str, &str)]) -> Arc<dyn Email> {
    let port = server.port().to_string();
    let usual = [
        ("host", "127.0.0.1"),
        ("port", port.as_str()),
        ("security", "none"),
        ("from", "Shop <shop@example.com>"),
        (
            "templates",
            r#"{"welcome": {"subject": "Welcome, ${name}", "text": "Order ${order} is on its way."}}"#,
        ),
    ];
    let metadata = [more, &usual].concat();
    let component = ComponentSpec {
        name: "post".to_owned(),
        component_type: "email.smtp".to_owned(),
        version: "v1".to_owned(),
        metadata: metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    match open(component, OpenContext::default()).await.unwrap() {
        Opened::Email(email) => email,
        _ => panic!("no e-mail"),
    }
}

/// The message that has this text in it.
fn received(server: &Process, text: &str) -> String {
    let files = std::fs::read_dir(server.folder().join("mail/new")).unwrap();
    let mut messages = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    messages.find(|message| message.contains(text)).unwrap_or_else(|| panic!("no message has {text:?}"))
}

fn mail(subject: &str, content: Content) -> Mail {
    Mail {
        to: vec!["Ada <ada@example.com>".to_owned()],
        cc: vec!["bob@example.com".to_owned()],
        subject: subject.to_owned(),
        content,
        ..Mail::default()
    }
}

#[tokio::test]
async fn messages_arrive_as_they_were_meant() {
    let server = dhow_servers::smtp().unwrap();
    let email = open_mail(&server, &[]).await;
    let text = "a line\n.\n.. with dots\nGrüße 🐪\n";
    let id = email.send(mail("Grüße\r\nBcc: eve@example.com", Content::Text(text.to_owned()))).await.unwrap();
    let found = received(&server, &id);
    for expected in [
        "Shop",
        "<shop@example.com>",
        "Ada",
        "<ada@example.com>",
        "bob@example.com",
        "X-RcptTo: ada@example.com, bob@example.com",
    ] {
        assert!(found.contains(expected), "no {expected:?} in {found}");
    }
    assert!(!found.lines().any(|line| line.starts_with("Bcc:")), "{found}");

    let parameters =
        [("name", "Ada"), ("order", "77")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let content = Content::Template { id: "welcome".to_owned(), parameters: BTreeMap::from(parameters) };
    email.send(mail("", content)).await.unwrap();
    let found = received(&server, "Order 77 is on its way.");
    assert!(found.contains("Subject: Welcome, Ada"), "{found}");
}

#[tokio::test]
async fn what_cannot_be_sent_says_why() {
    let mut server = dhow_servers::smtp().unwrap();
    let email = open_mail(&server, &[]).await;
    let to = |to: &str| Mail { to: vec![to.to_owned()], ..mail("x", Content::Text("x".to_owned())) };
    let template = Content::Template { id: "nope".to_owned(), parameters: BTreeMap::new() };
    for (what, message) in [
        ("address", to("nobody")),
        ("line break", to("a\r\nRCPT TO:<eve@example.com>@example.com")),
        ("template", mail("x", template)),
    ] {
        let answer = email.send(message).await;
        assert!(matches!(answer, Err(BlockError::Invalid { .. })), "{what}: {answer:?}");
    }
    let secure = open_mail(&server, &[("security", "starttls")]).await;
    let refused = secure.send(to("ada@example.com")).await.unwrap_err().to_string();
    assert!(refused.contains("STARTTLS"), "{refused}");
    let unknown = open_mail(&server, &[("user", "ada"), ("password", "hunter2")]).await;
    let refused = unknown.send(to("ada@example.com")).await.unwrap_err().to_string();
    assert!(!refused.contains("hunter2"), "{refused}");
    server.kill();
    let answer = email.send(to("ada@example.com")).await;
    assert!(matches!(answer, Err(BlockError::Unavailable { .. })), "{answer:?}");
}
