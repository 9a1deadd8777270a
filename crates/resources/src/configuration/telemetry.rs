//! Traces, metrics and logs of a host.

use crate::component::{self, MetadataItem, MetadataValue};
use crate::error::quote;
use crate::object::required_scalar;
use crate::tree::{Findings, Node, Table, Value};
use crate::values::{self, count, duration, required_word};
use std::collections::BTreeMap;
use std::time::Duration;

/// `spec.tracing`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tracing {
    /// `samplingRate`: the part of the traces that is kept, from 0 to 1; `None` leaves it to the host.
    pub sampling_rate: Option<f64>,
    /// `stdout`: spans are printed. Default false.
    pub stdout: bool,
    /// `zipkin.endpointAddress`: the URL that spans are sent to.
    pub zipkin: Option<String>,
    /// `otel`; `None` without an endpoint.
    pub otel: Option<Otel>,
}

/// `spec.tracing.otel`: a collector that spans are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otel {
    /// `protocol`.
    pub protocol: OtelProtocol,
    /// `endpointAddress`: host and perhaps port; a URL is possible.
    pub endpoint: String,
    /// `isSecure`: over TLS. Default true.
    pub is_secure: bool,
    /// `headers` of every request.
    pub headers: Vec<MetadataItem>,
    /// `timeout` of a request. Default 10 s.
    pub timeout: Duration,
}

/// How spans are sent to a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtelProtocol {
    /// OTLP over HTTP.
    Http,
    /// OTLP over gRPC.
    Grpc,
}

/// `spec.metrics` or `spec.metric`; `None` leaves a choice to the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// `enabled`. Dapr's default is true.
    pub enabled: Option<bool>,
    /// `recordErrorCodes`. Dapr's default is false.
    pub record_error_codes: Option<bool>,
    /// `http`.
    pub http: Option<HttpMetrics>,
    /// `rules`.
    pub rules: Vec<MetricRule>,
    /// `latencyDistributionBuckets`: upper bounds in milliseconds, ascending.
    pub latency_buckets: Option<Vec<u32>>,
}

/// `spec.metrics.http`; `None` leaves a choice to the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpMetrics {
    /// `increasedCardinality`: one series for each path.
    pub increased_cardinality: Option<bool>,
    /// `pathMatching`: paths that have a series of their own, such as `/orders/{id}`.
    pub path_matching: Vec<String>,
    /// `excludeVerbs`: no series for each method. Dapr's default is false.
    pub exclude_verbs: Option<bool>,
}

/// One of `spec.metrics.rules`: what becomes of the labels of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricRule {
    /// `name` of the metric.
    pub name: String,
    /// `labels`.
    pub labels: Vec<MetricLabel>,
}

/// One of `labels` of a [`MetricRule`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricLabel {
    /// `name` of the label.
    pub name: String,
    /// `regex`: new values by the regular expression that old ones match.
    pub regex: BTreeMap<String, String>,
}

/// `spec.logging.apiLogging`: one line for each request to the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApiLogging {
    /// `enabled`; `None` leaves it to the host. Dapr's default is false.
    pub enabled: Option<bool>,
    /// `obfuscateURLs`: the route in place of the path. Default false.
    pub obfuscate_urls: bool,
    /// `omitHealthChecks`. Default false.
    pub omit_health_checks: bool,
}

pub(super) fn tracing(findings: &mut Findings, table: &mut Table<'_>) -> Option<Tracing> {
    let sampling_rate = table.optional(findings, "samplingRate", sampling_rate);
    let stdout = table.optional(findings, "stdout", Findings::boolean);
    let zipkin = table.optional(
        findings,
        "zipkin",
        values::table(|f, table| table.optional(f, "endpointAddress", values::name)),
    );
    let otel = table.optional(findings, "otel", values::table(otel)).flatten();
    Some(Tracing { sampling_rate, stdout: stdout.unwrap_or(false), zipkin, otel })
}

fn sampling_rate(findings: &mut Findings, node: &Node, path: &str) -> Option<f64> {
    let text = findings.scalar(node, path).filter(|text| !text.is_empty())?;
    let rate = text.trim().parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
    if rate.is_none() {
        let hint = "expected a number from 0 to 1, such as \"0.1\" for every tenth trace";
        findings.add(node.at, path, format!("{} is not a sampling rate", quote(&text)), hint);
    }
    rate
}

fn otel(findings: &mut Findings, table: &mut Table<'_>) -> Option<Option<Otel>> {
    const PROTOCOLS: &[(&str, OtelProtocol)] = &[("http", OtelProtocol::Http), ("grpc", OtelProtocol::Grpc)];
    let endpoint = table.optional(findings, "endpointAddress", values::name);
    let protocol = match endpoint {
        Some(_) => required_word(findings, table, "protocol", PROTOCOLS),
        None => table.optional(findings, "protocol", values::word(PROTOCOLS)),
    };
    let is_secure = table.optional(findings, "isSecure", Findings::boolean);
    let headers = table.optional(findings, "headers", otel_headers);
    let timeout = table.optional(findings, "timeout", duration).filter(|timeout| !timeout.is_zero());
    let (Some(endpoint), Some(protocol)) = (endpoint, protocol) else { return Some(None) };
    Some(Some(Otel {
        protocol,
        endpoint,
        is_secure: is_secure.unwrap_or(true),
        headers: headers.unwrap_or_default(),
        timeout: timeout.unwrap_or(Duration::from_secs(10)),
    }))
}

/// Headers as a list of {name, value}, or in one text as OpenTelemetry writes them: `name=value,name=value`, where
/// `%20` is a blank. Errors repeat no value.
fn otel_headers(findings: &mut Findings, node: &Node, path: &str) -> Option<Vec<MetadataItem>> {
    const HINT: &str = "expected \"name=value,name=value\" or a list of {name, value}";
    if let Value::List(_) = node.value {
        return component::metadata(findings, node, path);
    }
    let Value::Text(text) = &node.value else {
        findings.wrong_type(node, path, "a string or a list of {name, value}");
        return None;
    };
    let mut headers = Vec::new();
    for (index, pair) in text.split(',').enumerate().filter(|(_, pair)| !pair.trim().is_empty()) {
        let pair = pair.split_once('=').map(|(name, value)| (name.trim(), percent_decoded(value.trim())));
        match pair {
            Some((name, Some(value))) if !name.is_empty() => headers.push(MetadataItem {
                name: name.to_owned(),
                line: 0,
                value: MetadataValue::Plain(value),
            }),
            _ => {
                findings.add(node.at, path, format!("the header {} cannot be read", index + 1), HINT);
                return None;
            }
        }
    }
    Some(headers)
}

/// Text with `%xx` replaced by the byte; `None` when that makes no text.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

pub(super) fn metrics(findings: &mut Findings, table: &mut Table<'_>) -> Option<Metrics> {
    let enabled = table.optional(findings, "enabled", Findings::boolean);
    let record_error_codes = table.optional(findings, "recordErrorCodes", Findings::boolean);
    let http = table.optional(findings, "http", values::table(http_metrics));
    let rules = table.optional(findings, "rules", values::tables("a list of {name, labels}", rule));
    let latency_buckets = table.optional(findings, "latencyDistributionBuckets", buckets);
    Some(Metrics { enabled, record_error_codes, http, rules: rules.unwrap_or_default(), latency_buckets })
}

fn http_metrics(findings: &mut Findings, table: &mut Table<'_>) -> Option<HttpMetrics> {
    let increased_cardinality = table.optional(findings, "increasedCardinality", Findings::boolean);
    let path_matching = table.optional(findings, "pathMatching", values::texts);
    let exclude_verbs = table.optional(findings, "excludeVerbs", Findings::boolean);
    Some(HttpMetrics {
        increased_cardinality,
        path_matching: path_matching.unwrap_or_default(),
        exclude_verbs,
    })
}

fn rule(findings: &mut Findings, table: &mut Table<'_>) -> Option<MetricRule> {
    let name = required_scalar(findings, table, "name", "expected the name of a metric");
    let labels = table.optional(findings, "labels", values::tables("a list of {name, regex}", label));
    Some(MetricRule { name: name?, labels: labels.unwrap_or_default() })
}

fn label(findings: &mut Findings, table: &mut Table<'_>) -> Option<MetricLabel> {
    let name = required_scalar(findings, table, "name", "expected the name of a label");
    let regex = table.optional(findings, "regex", values::text_map);
    Some(MetricLabel { name: name?, regex: regex.unwrap_or_default() })
}

fn buckets(findings: &mut Findings, node: &Node, path: &str) -> Option<Vec<u32>> {
    let nodes = findings.list(node, path, "a list of integers");
    let mut buckets: Vec<u32> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(bucket) = count(findings, node, &path) else { continue };
        if buckets.last().is_some_and(|last| *last >= bucket) {
            let message = format!("`{bucket}` is not larger than the one before it");
            findings.add(node.at, &path, message, "expected upper bounds in milliseconds, ascending");
        }
        buckets.push(bucket);
    }
    (!buckets.is_empty()).then_some(buckets)
}

pub(super) fn logging(findings: &mut Findings, table: &mut Table<'_>) -> Option<ApiLogging> {
    let logging = table.optional(
        findings,
        "apiLogging",
        values::table(|findings, table| {
            let enabled = table.optional(findings, "enabled", Findings::boolean);
            let obfuscate_urls = table.optional(findings, "obfuscateURLs", Findings::boolean);
            let omit_health_checks = table.optional(findings, "omitHealthChecks", Findings::boolean);
            Some(ApiLogging {
                enabled,
                obfuscate_urls: obfuscate_urls.unwrap_or(false),
                omit_health_checks: omit_health_checks.unwrap_or(false),
            })
        }),
    );
    Some(logging.unwrap_or_default())
}

// === impl Metrics ===

impl Metrics {
    /// These settings, and where one is not given, the other ones.
    pub(super) fn or(self, other: Metrics) -> Metrics {
        Metrics {
            enabled: self.enabled.or(other.enabled),
            record_error_codes: self.record_error_codes.or(other.record_error_codes),
            http: self.http.or(other.http),
            rules: if self.rules.is_empty() { other.rules } else { self.rules },
            latency_buckets: self.latency_buckets.or(other.latency_buckets),
        }
    }
}
