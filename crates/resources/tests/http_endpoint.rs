//! HTTP endpoints: what they mean, and what each mistake in them is answered with.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod mistakes;

use dhow_resources::component::MetadataValue;
use dhow_resources::http_endpoint::{HttpEndpoint, Renegotiation};
use dhow_resources::load::parse;
use mistakes::{Mistake, check};
use std::path::Path;

/// As the quickstart of service invocation has it, with what else is possible.
const GITHUB: &str = "\
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata:
  name: github
spec:
  version: v1alpha1
  baseUrl: https://api.github.com
  headers:
  - name: Accept-Language
    value: en-US
  - name: Authorization
    secretKeyRef:
      name: tokens
      key: github
  clientTLS:
    certificate:
      value: PEM
    privateKey:
      secretKeyRef:
        name: key
    renegotiation: never
auth:
  secretStore: vault
scopes:
- checkout
";

fn read(text: &str) -> Result<Vec<HttpEndpoint>, String> {
    let resources = parse(text, Path::new("e.yaml")).map_err(|errors| errors.to_string())?;
    Ok(resources.http_endpoints)
}

#[test]
fn every_field_is_read() {
    let endpoint = read(include_str!("data/kinds.yaml")).unwrap().remove(0);
    assert_eq!((endpoint.name.as_str(), endpoint.base_url.as_str()), ("github", "https://api.github.com"));
    let secret = |name: &str, key: &str| MetadataValue::SecretRef { name: name.into(), key: key.into() };
    let headers: Vec<_> = endpoint.headers.iter().map(|h| (h.name.as_str(), h.value.clone())).collect();
    let expected = [
        ("Accept-Language", MetadataValue::Plain("en-US".into())),
        ("Authorization", secret("tokens", "github")),
    ];
    assert_eq!(headers, expected);
    let tls = endpoint.client_tls.as_ref().unwrap();
    assert_eq!(tls.root_ca, Some(secret("root", "root")));
    assert_eq!(tls.certificate, Some(MetadataValue::Plain("-----BEGIN CERTIFICATE-----".into())));
    assert_eq!(tls.private_key, Some(secret("client", "private")));
    assert_eq!(tls.renegotiation, Renegotiation::OnceAsClient);
    assert_eq!(endpoint.auth_secret_store.as_deref(), Some("vault"));
    assert!(endpoint.is_in_scope("checkout") && !endpoint.is_in_scope("billing"));
    let shown = format!("{endpoint:?}");
    assert!(!shown.contains("en-US") && !shown.contains("BEGIN"), "{shown}");
}

#[test]
fn little_is_needed() {
    let text = "apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {name: a}\nspec: {baseUrl: 'HTTP://[::1]:80/x//'}\n";
    let endpoint = read(text).unwrap().remove(0);
    assert_eq!((endpoint.base_url.as_str(), endpoint.client_tls), ("HTTP://[::1]:80/x", None));
    assert_eq!((endpoint.headers.len(), endpoint.auth_secret_store), (0, None));
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let mistakes: &[Mistake] = &[
        (
            "dapr.io/v1alpha1",
            "dapr.io/v2alpha1",
            "e.yaml:1:13: apiVersion: `dapr.io/v2alpha1` is not a version of HTTPEndpoint; expected dapr.io/v1alpha1",
        ),
        (
            "  baseUrl:",
            "  baseURL:",
            "e.yaml:6:3: spec: `baseUrl` is missing; expected a URL such as https://example.com\ne.yaml:7:3: spec: unknown field `baseURL`; expected one of baseUrl, headers, clientTLS, version; did you mean `baseUrl`?",
        ),
        (
            "  baseUrl: https://api.github.com\n",
            "",
            "e.yaml:6:3: spec: `baseUrl` is missing; expected a URL such as https://example.com",
        ),
        (
            "https://api.github.com",
            "api.github.com",
            "e.yaml:7:12: spec.baseUrl: the URL does not begin with http:// or https://; expected http:// or https:// and a host, such as https://example.com/api",
        ),
        (
            "https://api.github.com",
            "ftp://api.github.com",
            "e.yaml:7:12: spec.baseUrl: the URL does not begin with http:// or https://; expected http:// or https:// and a host, such as https://example.com/api",
        ),
        (
            "https://api.github.com",
            "https:///path",
            "e.yaml:7:12: spec.baseUrl: the URL has no host; expected http:// or https:// and a host, such as https://example.com/api",
        ),
        (
            "https://api.github.com",
            "https://:443",
            "e.yaml:7:12: spec.baseUrl: the URL has no host; expected http:// or https:// and a host, such as https://example.com/api",
        ),
        (
            "https://api.github.com",
            "https://user:hunter2@x",
            "e.yaml:7:12: spec.baseUrl: the URL has a user or password; give them as a header with secretKeyRef",
        ),
        (
            "https://api.github.com",
            "https://x/?q=1",
            "e.yaml:7:12: spec.baseUrl: the URL has a query or fragment; expected the beginning of URLs: the path is appended to it",
        ),
        (
            "https://api.github.com",
            "https://x y",
            "e.yaml:7:12: spec.baseUrl: the URL has a blank, backslash or control character; expected http:// or https:// and a host, such as https://example.com/api",
        ),
        (
            "https://api.github.com",
            "[https://x]",
            "e.yaml:7:12: spec.baseUrl: must be a single value, found a list",
        ),
        (
            "  headers:\n",
            "  header:\n",
            "e.yaml:8:3: spec: unknown field `header`; expected one of baseUrl, headers, clientTLS, version; did you mean `headers`?",
        ),
        (
            "  - name: Accept-Language\n",
            "  - nme: Accept-Language\n",
            "e.yaml:9:5: spec.headers[0]: `name` is missing; expected {name, value}\ne.yaml:9:5: spec.headers[0]: unknown field `nme`; expected one of name, value, secretKeyRef, envRef; did you mean `name`?",
        ),
        (
            "Accept-Language",
            "\"Accept Language\"",
            "e.yaml:9:5: spec.headers[0]: `Accept Language` cannot be the name of a header; expected letters, digits and `-`",
        ),
        (
            "en-US",
            "\"a\\nb: c\"",
            "e.yaml:9:5: spec.headers[0]: the value has a line break or control character",
        ),
        (
            "    value: en-US",
            "    value: en-US\n    envRef: LANG",
            "e.yaml:9:5: spec.headers[0]: has more than one value; expected one of value, secretKeyRef, envRef",
        ),
        (
            "      name: tokens",
            "      nam: tokens",
            "e.yaml:13:7: spec.headers[1].secretKeyRef: `name` is missing; expected {name, key}\ne.yaml:13:7: spec.headers[1].secretKeyRef: unknown field `nam`; expected one of name, key; did you mean `name`?",
        ),
        (
            "    certificate:\n      value: PEM\n",
            "    certificate:\n",
            "e.yaml:16:5: spec.clientTLS: has only one of `certificate` and `privateKey`; expected both or none",
        ),
        (
            "    certificate:\n      value: PEM\n",
            "",
            "e.yaml:16:5: spec.clientTLS: has only one of `certificate` and `privateKey`; expected both or none",
        ),
        (
            "      value: PEM",
            "      valu: PEM",
            "e.yaml:17:7: spec.clientTLS.certificate: has no value; expected value or secretKeyRef\ne.yaml:17:7: spec.clientTLS.certificate: unknown field `valu`; expected one of value, secretKeyRef; did you mean `value`?",
        ),
        (
            "      value: PEM",
            "      value: PEM\n      secretKeyRef: {name: x}",
            "e.yaml:17:7: spec.clientTLS.certificate: has more than one value; expected value or secretKeyRef",
        ),
        (
            "    renegotiation: never",
            "    renegotiation: OnceAsCleint",
            "e.yaml:21:20: spec.clientTLS.renegotiation: `OnceAsCleint` is unknown; expected Never or OnceAsClient or FreelyAsClient; did you mean `OnceAsClient`?",
        ),
        (
            "  secretStore",
            "  secretstore",
            "e.yaml:23:3: auth: unknown field `secretstore`; expected one of secretStore; did you mean `secretStore`?",
        ),
        (
            "scopes:",
            "scops:",
            "e.yaml:24:1: unknown field `scops`; expected one of apiVersion, kind, metadata, spec, auth, scopes; did you mean `scopes`?",
        ),
    ];
    check(GITHUB, mistakes, read);
}
