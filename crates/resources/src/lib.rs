//! Manifests and resource YAML: parse, validate, point at the line that is wrong.
