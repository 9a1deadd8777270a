//! Compiles the protocol of pluggable components to the side that calls them, without an installed `protoc`.

use std::io;
use std::path::PathBuf;

fn main() -> io::Result<()> {
    let folder = PathBuf::from("../../proto");
    println!("cargo::rerun-if-changed={}", folder.join("dapr/proto/components").display());
    let files = ["bindings", "pubsub", "secretstore", "state"];
    let files = files.map(|file| format!("dapr/proto/components/v1/{file}.proto"));
    let descriptors = protox::compile(files, [&folder]).map_err(io::Error::other)?;
    tonic_prost_build::configure()
        .build_transport(false)
        .build_server(false)
        // The same map as the metadata of all blocks.
        .btree_map(".")
        .bytes(".")
        .compile_fds(descriptors)
}
