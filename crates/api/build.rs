//! Compiles `/proto` to messages, to the server side of what apps call and to the client side of what apps offer,
//! without an installed `protoc`.

use prost::Message;
use std::path::PathBuf;
use std::{env, fs, io};

const FILES: [&str; 2] = ["dapr/proto/runtime/v1/dapr.proto", "dapr/proto/runtime/v1/appcallback.proto"];

fn main() -> io::Result<()> {
    let folder = PathBuf::from("../../proto");
    println!("cargo::rerun-if-changed={}", folder.display());
    let descriptors = protox::compile(FILES, [&folder]).map_err(io::Error::other)?;
    // For server reflection.
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(false)
        // Blocks that are not there yet answer "unimplemented"; `grpc::missing` adds which block it is.
        .generate_default_stubs(true)
        // The same map as the metadata of all blocks.
        .btree_map(".")
        .bytes(".")
        .compile_fds(descriptors)
}
