//! A loaded app: which room it lives in, and the way in.

use crate::command::{Command, CommandKind};
use crate::failure::{Failure, LoadError};
use crate::http2::Http2;
use crate::http3::Http3;
use crate::linker::{self, Linkers};
use crate::setup::{Setup, Stdio};
use dhow_blocks::invoke::{Invocation, Reply};
use dhow_engine::{Abi, Code, Engine, Image, Inspection};
use std::sync::Arc;

/// A program, linked and ready to be instantiated for each invocation. Cheap to clone.
#[derive(Clone)]
pub struct Guest(Room);

#[derive(Clone)]
enum Room {
    Http2(Arc<Http2>),
    Http3(Arc<Http3>),
    Command(Arc<Command>),
}

/// Whoever invoked a guest: hears of a failure, also of one after the head of the response was sent, and is
/// dropped when the guest has ended.
pub trait Invoked: Send + Unpin + 'static {
    /// The guest failed; at most once.
    fn failed(&mut self, failure: &Failure);
}

impl Guest {
    /// Links a program. `inspection` says which ABI the image speaks.
    pub fn load(
        engine: &Engine,
        linkers: &Linkers,
        image: &Image,
        inspection: &Inspection,
        setup: Arc<Setup>,
    ) -> Result<Guest, LoadError> {
        if let Some(error) = linker::unsupported(inspection) {
            return Err(error);
        }
        let linked = || -> wasmtime::Result<Room> {
            let engine = engine.clone();
            Ok(match (&image.code, inspection.abi) {
                (Code::Component(component), abi) => {
                    let pre = linkers.component(&engine, image.flavor)?.instantiate_pre(component)?;
                    match abi {
                        Abi::Http2 => Room::Http2(Arc::new(Http2::new(engine, pre, setup)?)),
                        Abi::Http3 => Room::Http3(Arc::new(Http3::new(engine, pre, setup)?)),
                        Abi::Cli3 => Room::Command(Arc::new(Command::new(
                            engine,
                            CommandKind::component3(pre)?,
                            setup,
                        ))),
                        _ => Room::Command(Arc::new(Command::new(
                            engine,
                            CommandKind::component2(pre)?,
                            setup,
                        ))),
                    }
                }
                (Code::Module(module), _) => {
                    let pre = linkers.module(&engine)?.instantiate_pre(module)?;
                    Room::Command(Arc::new(Command::new(engine, CommandKind::Module(pre), setup)))
                }
            })
        };
        linked().map(Guest).map_err(|error| linker::explain(inspection, &error))
    }

    /// Delivers one invocation; the answer is there when its head is.
    pub async fn invoke<W: Invoked>(&self, invocation: Invocation, mut watch: W) -> Result<Reply, Failure> {
        match &self.0 {
            Room::Http2(room) => room.invoke(invocation, watch).await,
            Room::Http3(room) => room.invoke(invocation, watch).await,
            Room::Command(room) => {
                let answer = crate::cgi::invoke(room, invocation).await;
                if let Err(failure) = &answer {
                    watch.failed(failure);
                }
                answer
            }
        }
    }

    /// Runs a command to its end; the answer is its exit code. `None` if the guest is no command.
    pub async fn run(&self, args: &[String], stdio: Stdio) -> Option<Result<i32, Failure>> {
        match &self.0 {
            Room::Command(room) => Some(room.run(args, stdio).await),
            Room::Http2(_) | Room::Http3(_) => None,
        }
    }

    /// Lets go of instances that are kept for reuse and have been idle.
    pub fn sweep(&self) {
        if let Room::Http2(room) = &self.0 {
            room.sweep();
        }
    }
}
