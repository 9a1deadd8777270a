//! Components in processes of their own, in any language, by Dapr's protocol for them.
//!
//! Such a process listens on a Unix socket in a known folder and serves one or more of the services in
//! `proto/dapr/proto/components/v1`. The socket's name, without its extension, is the second half of the component's
//! type: `mystore.sock` serves `state.mystore`, `pubsub.mystore`, `bindings.mystore` and `secretstores.mystore`, whichever
//! of these services it has. One process may serve several components of one type; each call names the component in the
//! header `x-component-instance`.
//!
//! | file | subject |
//! |---|---|
//! | `socket` | the connection, which is made again, with `Init`, when it is lost |
//! | `receiving` | messages and events that come over a stream |
//! | `state`, `pubsub`, `binding`, `secrets` | the blocks |

mod binding;
mod pubsub;
mod receiving;
mod secrets;
mod socket;
mod state;

use crate::registry::Provider;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Names the folder of the sockets.
const FOLDER: &str = "DAPR_COMPONENTS_SOCKETS_FOLDER";

/// The folder where none is named (Dapr's).
const USUAL_FOLDER: &str = "/tmp/dapr-components-sockets";

/// Messages of the protocol, generated at build time.
#[allow(missing_docs, unreachable_pub, rustdoc::all, clippy::all, clippy::pedantic)]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/dapr.proto.components.v1.rs"));
}

/// The provider of a type whose socket is there.
pub(crate) fn provider(component_type: &str) -> Option<&'static Provider> {
    let (block, _) = component_type.split_once('.')?;
    let provider = match block {
        "state" => &state::PROVIDER,
        "pubsub" => &pubsub::PROVIDER,
        "bindings" => &binding::PROVIDER,
        "secretstores" => &secrets::PROVIDER,
        _ => return None,
    };
    path(component_type).is_some().then_some(provider)
}

/// What may be said about a type that is not known.
pub(crate) fn hint() -> String {
    let (folder, _) = folder();
    format!(
        "; a component that is a process of its own has its socket in {}, or in the folder that {FOLDER} names",
        folder.display()
    )
}

/// The socket that serves a type. In the usual folder, where every user of the machine may put one, only a socket of the
/// own user or of root counts.
fn path(component_type: &str) -> Option<PathBuf> {
    let (_, name) = component_type.split_once('.')?;
    let (folder, is_chosen) = folder();
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries.into_iter().find(|entry| {
        let is_named = entry.file_stem().is_some_and(|stem| stem.eq_ignore_ascii_case(name));
        is_named
            && fs::metadata(entry).is_ok_and(|about| {
                about.file_type().is_socket()
                    && (is_chosen || about.uid() == 0 || Some(about.uid()) == own_user())
            })
    })
}

/// The folder, and whether it was named rather than the usual one.
fn folder() -> (PathBuf, bool) {
    match std::env::var_os(FOLDER).filter(|folder| !folder.is_empty()) {
        Some(folder) => (PathBuf::from(folder), true),
        None => (PathBuf::from(USUAL_FOLDER), false),
    }
}

fn own_user() -> Option<u32> {
    fs::metadata(Path::new("/proc/self")).ok().map(|about| about.uid())
}
