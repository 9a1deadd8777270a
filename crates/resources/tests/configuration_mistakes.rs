//! Configurations: what each mistake in them is answered with.

mod mistakes;

use dhow_resources::configuration::{self, Configuration};
use mistakes::{Mistake, check};
use std::path::Path;

/// What mistakes are made in.
const FULL: &str = "\
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: host
spec:
  tracing:
    samplingRate: \"0.5\"
    stdout: true
    zipkin:
      endpointAddress: http://localhost:9411
    otel:
      protocol: grpc
      endpointAddress: localhost:4317
      headers: key=value
      timeout: 1000
  metrics:
    enabled: true
    http:
      pathMatching:
      - /orders
    rules:
    - name: metric
      labels:
      - name: method
        regex: {a: b}
    latencyDistributionBuckets: [1, 10]
  logging:
    apiLogging:
      enabled: true
  secrets:
    scopes:
    - storeName: vault
      defaultAccess: deny
      allowedSecrets: [a]
  accessControl:
    defaultAction: deny
    policies:
    - appId: checkout
      trustDomain: public
      namespace: default
      operations:
      - name: /orders
        httpVerb: [GET]
        action: allow
  nameResolution:
    component: mdns
    configuration:
      a: b
  features:
  - name: HotReload
    enabled: true
  api:
    allowed:
    - name: state
      version: v1.0
      protocol: http
  components:
    deny: [state.redis]
  httpPipeline:
    handlers:
    - name: limit
      type: middleware.http.ratelimit
  mtls:
    enabled: true
  wasm:
    strictSandbox: true
  workflow:
    maxConcurrentWorkflowInvocations: 1
";

fn read(text: &str) -> Result<Configuration, String> {
    configuration::parse(text, Path::new("c.yaml")).map_err(|errors| errors.to_string())
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let mistakes: &[Mistake] = &[
        (
            "v1alpha1",
            "v2alpha1",
            "c.yaml:1:13: apiVersion: `dapr.io/v2alpha1` is not a version of Configuration; expected dapr.io/v1alpha1",
        ),
        (
            "kind: Configuration",
            "kind: Component",
            "c.yaml:2:7: kind: `Component` is not Configuration; expected kind: Configuration",
        ),
        ("kind: Configuration\n", "", "c.yaml:1:1: `kind` is missing; expected kind: Configuration"),
        (
            "  name: host",
            "  nmae: host",
            "c.yaml:4:3: metadata: unknown field `nmae`; expected one of name, namespace, labels, annotations, creationTimestamp, finalizers, generateName, generation, managedFields, ownerReferences, resourceVersion, uid; did you mean `name`?",
        ),
        (
            "metadata:",
            "scopes: [a]\nmetadata:",
            "c.yaml:3:1: unknown field `scopes`; expected one of apiVersion, kind, metadata, spec",
        ),
        (
            "spec:",
            "spce:",
            "c.yaml:5:1: unknown field `spce`; expected one of apiVersion, kind, metadata, spec; did you mean `spec`?",
        ),
        (
            "  tracing:",
            "  tracng:",
            "c.yaml:6:3: spec: unknown field `tracng`; expected one of tracing, metric, metrics, logging, secrets, accessControl, api, components, nameResolution, features, httpPipeline, appHttpPipeline, mtls, wasm, workflow; did you mean `tracing`?",
        ),
        (
            "\"0.5\"",
            "\"1.5\"",
            "c.yaml:7:19: spec.tracing.samplingRate: `1.5` is not a sampling rate; expected a number from 0 to 1, such as \"0.1\" for every tenth trace",
        ),
        (
            "\"0.5\"",
            "-1",
            "c.yaml:7:19: spec.tracing.samplingRate: `-1` is not a sampling rate; expected a number from 0 to 1, such as \"0.1\" for every tenth trace",
        ),
        (
            "\"0.5\"",
            "often",
            "c.yaml:7:19: spec.tracing.samplingRate: `often` is not a sampling rate; expected a number from 0 to 1, such as \"0.1\" for every tenth trace",
        ),
        (
            "\"0.5\"",
            "nan",
            "c.yaml:7:19: spec.tracing.samplingRate: `nan` is not a sampling rate; expected a number from 0 to 1, such as \"0.1\" for every tenth trace",
        ),
        ("\"0.5\"", "[1]", "c.yaml:7:19: spec.tracing.samplingRate: must be a single value, found a list"),
        (
            "    stdout: true",
            "    stdout: 1",
            "c.yaml:8:13: spec.tracing.stdout: must be true or false, found an integer",
        ),
        (
            "      endpointAddress: http",
            "      endpointAdress: http",
            "c.yaml:10:7: spec.tracing.zipkin: unknown field `endpointAdress`; expected one of endpointAddress; did you mean `endpointAddress`?",
        ),
        (
            "      protocol: grpc\n",
            "",
            "c.yaml:12:7: spec.tracing.otel: `protocol` is missing; expected http or grpc",
        ),
        (
            "      protocol: grpc",
            "      protocol: gprc",
            "c.yaml:12:17: spec.tracing.otel.protocol: `gprc` is unknown; expected http or grpc; did you mean `grpc`?",
        ),
        (
            "      headers: key=value",
            "      headers: hunter2",
            "c.yaml:14:16: spec.tracing.otel.headers: the header 1 cannot be read; expected \"name=value,name=value\" or a list of {name, value}",
        ),
        (
            "      headers: key=value",
            "      headers: key=%4",
            "c.yaml:14:16: spec.tracing.otel.headers: the header 1 cannot be read; expected \"name=value,name=value\" or a list of {name, value}",
        ),
        (
            "      headers: key=value",
            "      headers: {key: value}",
            "c.yaml:14:16: spec.tracing.otel.headers: must be a string or a list of {name, value}, found a map",
        ),
        (
            "      timeout: 1000",
            "      timeout: soon",
            "c.yaml:15:16: spec.tracing.otel.timeout: `soon` is not a duration; expected a duration such as \"500ms\", \"30s\", \"1m30s\", or milliseconds as a number",
        ),
        (
            "      timeout: 1000",
            "      timeOut: 1000",
            "c.yaml:15:7: spec.tracing.otel: unknown field `timeOut`; expected one of endpointAddress, protocol, isSecure, headers, timeout; did you mean `timeout`?",
        ),
        (
            "  metrics:\n    enabled: true",
            "  metrics:\n    enabled: yess",
            "c.yaml:17:14: spec.metrics.enabled: must be true or false, found a string",
        ),
        (
            "      pathMatching:\n      - /orders",
            "      pathMatching: /orders",
            "c.yaml:19:21: spec.metrics.http.pathMatching: must be a list of strings, found a string",
        ),
        (
            "      - /orders\n    rules",
            "      - ''\n    rules",
            "c.yaml:20:9: spec.metrics.http.pathMatching[0]: is empty; expected a text",
        ),
        (
            "    - name: metric\n",
            "    - nam: metric\n",
            "c.yaml:22:7: spec.metrics.rules[0]: `name` is missing; expected the name of a metric\nc.yaml:22:7: spec.metrics.rules[0]: unknown field `nam`; expected one of name, labels; did you mean `name`?",
        ),
        (
            "        regex: {a: b}",
            "        regex: [a]",
            "c.yaml:25:16: spec.metrics.rules[0].labels[0].regex: must be a map, found a list",
        ),
        (
            "[1, 10]",
            "[10, 10]",
            "c.yaml:26:38: spec.metrics.latencyDistributionBuckets[1]: `10` is not larger than the one before it; expected upper bounds in milliseconds, ascending",
        ),
        (
            "[1, 10]",
            "[1, ten]",
            "c.yaml:26:37: spec.metrics.latencyDistributionBuckets[1]: must be an integer, found a string",
        ),
        (
            "    apiLogging:",
            "    apilogging:",
            "c.yaml:28:5: spec.logging: unknown field `apilogging`; expected one of apiLogging; did you mean `apiLogging`?",
        ),
        (
            "    - storeName: vault",
            "    - storeName: vault\n    - storeName: vault",
            "c.yaml:33:7: spec.secrets.scopes[1]: the store `vault` is given twice; expected one scope for each store",
        ),
        (
            "    - storeName: vault\n",
            "    -\n",
            "c.yaml:33:7: spec.secrets.scopes[0]: `storeName` is missing; expected the name of a secret store",
        ),
        (
            "      defaultAccess: deny",
            "      defaultAccess: refuse",
            "c.yaml:33:22: spec.secrets.scopes[0].defaultAccess: `refuse` is unknown; expected allow or deny",
        ),
        (
            "      allowedSecrets: [a]",
            "      allowedSecret: [a]",
            "c.yaml:34:7: spec.secrets.scopes[0]: unknown field `allowedSecret`; expected one of storeName, defaultAccess, allowedSecrets, deniedSecrets; did you mean `allowedSecrets`?",
        ),
        (
            "    defaultAction: deny",
            "    defaultAction: dany",
            "c.yaml:36:20: spec.accessControl.defaultAction: `dany` is unknown; expected allow or deny; did you mean `deny`?",
        ),
        (
            "      trustDomain: public\n",
            "",
            "c.yaml:38:7: spec.accessControl.policies[0]: `trustDomain` is missing; expected a name such as public",
        ),
        (
            "      namespace: default\n",
            "",
            "c.yaml:38:7: spec.accessControl.policies[0]: `namespace` is missing; expected a name such as default",
        ),
        (
            "    - appId: checkout",
            "    - appID: checkout",
            "c.yaml:38:7: spec.accessControl.policies[0]: `appId` is missing; expected the app-id of the caller\nc.yaml:38:7: spec.accessControl.policies[0]: unknown field `appID`; expected one of appId, defaultAction, trustDomain, namespace, operations; did you mean `appId`?",
        ),
        (
            "        httpVerb: [GET]",
            "        httpVerb: [GTE]",
            "c.yaml:43:20: spec.accessControl.policies[0].operations[0].httpVerb[0]: `GTE` is unknown; expected * or CONNECT or DELETE or GET or HEAD or OPTIONS or PATCH or POST or PUT or TRACE; did you mean `GET`?",
        ),
        (
            "        httpVerb: [GET]",
            "        httpVerb: GET",
            "c.yaml:43:19: spec.accessControl.policies[0].operations[0].httpVerb: must be a list of strings, found a string",
        ),
        (
            "        action: allow\n",
            "",
            "c.yaml:42:9: spec.accessControl.policies[0].operations[0]: `action` is missing; expected allow or deny",
        ),
        (
            "        action: allow",
            "        action: maybe",
            "c.yaml:44:17: spec.accessControl.policies[0].operations[0].action: `maybe` is unknown; expected allow or deny",
        ),
        (
            "    component: mdns\n",
            "",
            "c.yaml:46:5: spec.nameResolution: `component` is missing; expected a name such as mdns",
        ),
        (
            "    configuration:\n      a: b",
            "    configuration: a=b",
            "c.yaml:47:20: spec.nameResolution.configuration: must be a map, found a string",
        ),
        (
            "    enabled: true\n  api:",
            "    enabled: 1\n  api:",
            "c.yaml:51:14: spec.features[0].enabled: must be true or false, found an integer",
        ),
        (
            "      protocol: http\n",
            "",
            "c.yaml:54:7: spec.api.allowed[0]: `protocol` is missing; expected http or grpc",
        ),
        (
            "      protocol: http",
            "      protocol: https",
            "c.yaml:56:17: spec.api.allowed[0].protocol: `https` is unknown; expected http or grpc; did you mean `http`?",
        ),
        (
            "      version: v1.0\n",
            "",
            "c.yaml:54:7: spec.api.allowed[0]: `version` is missing; expected a version such as v1.0",
        ),
        (
            "    allowed:\n    - name: state",
            "    alowed:\n    - name: state",
            "c.yaml:53:5: spec.api: unknown field `alowed`; expected one of allowed, denied; did you mean `allowed`?",
        ),
        (
            "    deny: [state.redis]",
            "    deny: state.redis",
            "c.yaml:58:11: spec.components.deny: must be a list of strings, found a string",
        ),
        (
            "    - name: limit\n      type",
            "    - name: limit\n      typ",
            "c.yaml:61:7: spec.httpPipeline.handlers[0]: `type` is missing; expected a type such as middleware.http.ratelimit\nc.yaml:62:7: spec.httpPipeline.handlers[0]: unknown field `typ`; expected one of name, type, version, selector; did you mean `type`?",
        ),
        (
            "  mtls:\n    enabled",
            "  mtls:\n    enable",
            "c.yaml:64:5: spec.mtls: unknown field `enable`; expected one of enabled, workloadCertTTL, allowedClockSkew, sentryAddress, controlPlaneTrustDomain, tokenValidators; did you mean `enabled`?",
        ),
        (
            "    strictSandbox",
            "    strictSandBox",
            "c.yaml:66:5: spec.wasm: unknown field `strictSandBox`; expected one of strictSandbox; did you mean `strictSandbox`?",
        ),
        (
            "  workflow:\n    maxConcurrentWorkflowInvocations: 1",
            "  workflow: 1",
            "c.yaml:67:13: spec.workflow: must be a map, found an integer",
        ),
        (
            "  workflow:",
            "  workflows:",
            "c.yaml:67:3: spec: unknown field `workflows`; expected one of tracing, metric, metrics, logging, secrets, accessControl, api, components, nameResolution, features, httpPipeline, appHttpPipeline, mtls, wasm, workflow; did you mean `workflow`?",
        ),
    ];
    check(FULL, mistakes, read);
}
