//! Media types of what registries hold, and what is behind them.
//!
//! Wasm artifacts: <https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>; images:
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/media-types.md> and Docker's before it.

/// A manifest of OCI.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An index of OCI.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// A manifest of Docker.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// An index of Docker.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The configuration of an image of OCI.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The configuration of a Wasm artifact.
pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// The one layer of a Wasm artifact.
pub const WASM: &str = "application/wasm";
/// Nothing: `{}`.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// What cosign signs: a document that names the digest of a manifest.
pub const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// A bundle of Sigstore, without the version at its end.
pub const SIGSTORE_BUNDLE: &str = "application/vnd.dev.sigstore.bundle";

/// Manifests and indexes, in the order in which they are asked for.
pub const MANIFESTS: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX];

/// Layers that are a module as it is, newest first.
pub const WASM_LAYERS: [&str; 5] = [
    WASM,
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.component.wasm.content.layer.v1+wasm",
];

/// What a layer is, by its media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// A module as it is.
    Wasm,
    /// A tar archive, which may be packed with gzip or Zstandard: the first bytes say so, and only they are believed.
    Tar,
    /// Something else, which tools that push any file write; it may be a module.
    Other,
}

impl LayerKind {
    /// What the media type says; parameters behind a semicolon do not count.
    pub fn of(media_type: &str) -> LayerKind {
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        let tars = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];
        if WASM_LAYERS.contains(&media_type) {
            LayerKind::Wasm
        } else if tars.iter().any(|tar| media_type.starts_with(tar)) {
            LayerKind::Tar
        } else {
            LayerKind::Other
        }
    }
}

/// Whether it is an index, which leads to manifests of platforms.
pub fn is_index(media_type: &str) -> bool {
    media_type == OCI_INDEX || media_type == DOCKER_INDEX
}

#[cfg(test)]
mod tests {
    use super::LayerKind;

    #[test]
    fn layers_are_told_apart() {
        let cases = [
            ("application/wasm", LayerKind::Wasm),
            ("application/vnd.module.wasm.content.layer.v1+wasm", LayerKind::Wasm),
            ("application/vnd.oci.image.layer.v1.tar", LayerKind::Tar),
            ("application/vnd.oci.image.layer.v1.tar+gzip", LayerKind::Tar),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", LayerKind::Tar),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", LayerKind::Tar),
            ("application/vnd.oci.image.layer.v1.tar+zstd", LayerKind::Tar),
            ("application/octet-stream", LayerKind::Other),
            ("", LayerKind::Other),
        ];
        for (media_type, kind) in cases {
            assert_eq!(LayerKind::of(media_type), kind, "{media_type}");
        }
    }
}
