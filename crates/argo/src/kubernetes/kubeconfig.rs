//! kubectl's file (<https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/>).

use super::access::{Access, Token};
use super::{beside, read_file};
use crate::manifest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dhow_providers::tls::Tls;
use serde_json::Value;
use std::path::Path;

/// What a context of the file says.
pub(super) fn read(file: &Path, context: Option<&str>) -> Result<Access, String> {
    let shown = file.display();
    let documents = dhow_resources::documents::read(file).map_err(|error| error.to_string())?;
    let whole = documents.first().map(manifest::json).unwrap_or_default();
    let current = whole.get("current-context").and_then(Value::as_str).unwrap_or_default();
    let context = context.unwrap_or(current);
    if context.is_empty() {
        return Err(format!("{shown}: there is no `current-context`; name one with --context"));
    }
    let failed = |what: &str| format!("{shown}: {what}");
    let chosen = named(&whole, "contexts", context).and_then(|entry| entry.get("context"));
    let chosen = chosen.ok_or_else(|| failed(&format!("there is no context {context:?}")))?;
    let name = |field: &str| chosen.get(field).and_then(Value::as_str).unwrap_or_default();
    let cluster = named(&whole, "clusters", name("cluster")).and_then(|entry| entry.get("cluster"));
    let cluster = cluster.ok_or_else(|| failed(&format!("there is no cluster {:?}", name("cluster"))))?;
    let nobody = Value::Null;
    let user = named(&whole, "users", name("user")).and_then(|entry| entry.get("user")).unwrap_or(&nobody);
    for (place, field) in
        [(cluster, "proxy-url"), (cluster, "tls-server-name"), (user, "username"), (user, "auth-provider")]
    {
        if place.get(field).is_some() {
            return Err(failed(&format!("`{field}` is not supported; use --server with --token-file")));
        }
    }
    let server = cluster.get("server").and_then(Value::as_str);
    let server = server.ok_or_else(|| failed("the cluster has no `server`"))?.to_owned();
    let identity = match (bytes(file, user, "client-certificate")?, bytes(file, user, "client-key")?) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(failed("`client-certificate` and `client-key` belong together")),
    };
    let authorities = bytes(file, cluster, "certificate-authority")?;
    let insecure = cluster.get("insecure-skip-tls-verify") == Some(&Value::Bool(true));
    let tls = Tls { authorities, identity, insecure };
    let namespace = chosen.get("namespace").and_then(Value::as_str).filter(|name| !name.is_empty());
    Ok(Access { server, tls, token: token(file, user)?, namespace: namespace.map(str::to_owned) })
}

fn named<'a>(whole: &'a Value, list: &str, name: &str) -> Option<&'a Value> {
    let entries = whole.get(list)?.as_array()?;
    entries.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some(name))
}

/// `NAME-data` in base64, or the file that `NAME` names.
fn bytes(file: &Path, object: &Value, name: &str) -> Result<Option<Vec<u8>>, String> {
    if let Some(data) = object.get(format!("{name}-data")).and_then(Value::as_str) {
        let decoded = STANDARD.decode(data.trim());
        return decoded.map(Some).map_err(|_| format!("{}: `{name}-data` is no base64", file.display()));
    }
    let path = object.get(name).and_then(Value::as_str);
    path.map(|path| read_file(&beside(file, path))).transpose()
}

fn token(file: &Path, user: &Value) -> Result<Token, String> {
    let text = |field: &str| user.get(field).and_then(Value::as_str);
    // kubectl prefers the file.
    if let Some(path) = text("tokenFile") {
        return Ok(Token::File(beside(file, path)));
    }
    if let Some(token) = text("token") {
        return Ok(Token::Text(token.to_owned()));
    }
    let Some(exec) = user.get("exec") else { return Ok(Token::None) };
    let Some(program) = exec.get("command").and_then(Value::as_str) else {
        return Err(format!("{}: `exec` has no `command`", file.display()));
    };
    // A name alone is looked for where programs are; a path begins beside the file.
    let program = if program.contains('/') {
        beside(file, program).to_string_lossy().into_owned()
    } else {
        program.to_owned()
    };
    let args = exec.get("args").and_then(Value::as_array).into_iter().flatten();
    let env = exec.get("env").and_then(Value::as_array).into_iter().flatten();
    let variable = |entry: &Value| {
        let part = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        (part("name"), part("value"))
    };
    let api_version = exec.get("apiVersion").and_then(Value::as_str);
    Ok(Token::Program {
        command: [program].into_iter().chain(args.map(crate::model::scalar_text)).collect(),
        env: env.map(variable).filter(|(name, _)| !name.is_empty()).collect(),
        api_version: api_version.unwrap_or("client.authentication.k8s.io/v1").to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
apiVersion: v1
kind: Config
current-context: one
contexts:
- {name: one, context: {cluster: local, user: me, namespace: argo}}
- {name: two, context: {cluster: local, user: program}}
- {name: wrong, context: {cluster: nowhere, user: me}}
clusters:
- {name: local, cluster: {server: "https://127.0.0.1:6443", certificate-authority-data: Q0E=}}
users:
- {name: me, user: {tokenFile: token, token: other}}
- name: program
  user:
    exec: {command: ./login, args: [--for, 7], env: [{name: A, value: b}], apiVersion: client.authentication.k8s.io/v1beta1}
"#;

    #[test]
    fn contexts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        std::fs::write(&file, FILE).unwrap();
        let one = read(&file, None).unwrap();
        assert_eq!((one.server.as_str(), one.namespace.as_deref()), ("https://127.0.0.1:6443", Some("argo")));
        assert_eq!(one.tls.authorities.as_deref(), Some(&b"CA"[..]));
        assert!(matches!(&one.token, Token::File(path) if *path == folder.path().join("token")));
        let two = read(&file, Some("two")).unwrap();
        let Token::Program { command, env, api_version } = &two.token else { panic!("{two:?}") };
        assert_eq!(command[1..], ["--for", "7"]);
        assert_eq!((env["A"].as_str(), api_version.ends_with("v1beta1")), ("b", true));
        for (context, message) in [("wrong", "no cluster \"nowhere\""), ("none", "no context \"none\"")] {
            let error = read(&file, Some(context)).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
        std::fs::write(&file, FILE.replace("token: other", "username: x")).unwrap();
        assert!(read(&file, None).unwrap_err().contains("`username` is not supported"));
    }

    #[tokio::test]
    async fn programs_make_tokens() {
        let env = std::collections::BTreeMap::new();
        let said = |text: &str| Token::Program {
            command: ["sh", "-c", text].map(str::to_owned).to_vec(),
            env: env.clone(),
            api_version: "client.authentication.k8s.io/v1".to_owned(),
        };
        let token = said(r#"printf '{"status": {"token": "%s"}}' "$(echo "$KUBERNETES_EXEC_INFO" | wc -l)""#);
        assert_eq!(token.read().await.unwrap().unwrap().trim(), "1");
        for (text, message) in [("exit 3", "exit status: 3"), ("echo hello", "no ExecCredential")] {
            let error = said(text).read().await.unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
