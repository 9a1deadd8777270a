//! `bindings.redis`: plain keys of a server. Which one, says the request's metadata `key`.

use super::pool::{Pool, Repeat};
use crate::registry::{Open, Provider};
use async_trait::async_trait;
use bytes::Bytes;
use dhow_blocks::binding::{Binding, BindingRequest, BindingResponse};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Metadata, value};
use std::sync::Arc;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "bindings.redis",
    aliases: &[],
    versions: &["v1"],
    fields: super::fields![],
    open: Open::Binding(|component, _| {
        Box::pin(async move { Ok(Arc::new(RedisBinding { pool: super::open(&component).await? }) as Arc<_>) })
    }),
};

const OPERATIONS: &[&str] = &["create", "delete", "get", "increment"];

/// An output binding to one Redis server.
struct RedisBinding {
    pool: Pool,
}

// === impl RedisBinding ===

#[async_trait]
impl Binding for RedisBinding {
    fn operations(&self) -> Vec<&str> {
        OPERATIONS.to_vec()
    }

    async fn invoke(&self, request: BindingRequest) -> Result<BindingResponse, BlockError> {
        if !OPERATIONS.contains(&request.operation.as_str()) {
            return Err(unknown(&request.operation));
        }
        let Some(key) = value(&request.metadata, "key").filter(|key| !key.is_empty()) else {
            return Err(BlockError::invalid("the request's metadata need a key"));
        };
        let mut data = None;
        match request.operation.as_str() {
            "create" => {
                let mut set = ::redis::cmd("SET");
                set.arg(key).arg(&request.data[..]);
                if let Some(seconds) = seconds_to_live(&request.metadata)? {
                    set.arg("EX").arg(seconds);
                }
                let () = self.pool.command(Repeat::Never, &set).await?;
            }
            "delete" => {
                let () = self.pool.command(Repeat::Never, ::redis::cmd("DEL").arg(key)).await?;
            }
            "get" => {
                let delete = value(&request.metadata, "delete").is_some_and(|delete| delete == "true");
                let (command, repeat) =
                    if delete { ("GETDEL", Repeat::Never) } else { ("GET", Repeat::Harmless) };
                let found: Option<Bytes> = self.pool.command(repeat, ::redis::cmd(command).arg(key)).await?;
                data = found;
            }
            "increment" => {
                let mut pipeline = ::redis::pipe();
                pipeline.atomic().cmd("INCR").arg(key);
                if let Some(seconds) = seconds_to_live(&request.metadata)? {
                    pipeline.cmd("EXPIRE").arg(key).arg(seconds);
                }
                let _sums: Vec<i64> = self.pool.pipeline(Repeat::Never, &pipeline).await?;
            }
            other => return Err(unknown(other)),
        }
        Ok(BindingResponse { data, metadata: Metadata::new() })
    }

    async fn ping(&self) -> Result<(), BlockError> {
        let () = self.pool.command(Repeat::Harmless, &::redis::cmd("PING")).await?;
        Ok(())
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

fn unknown(operation: &str) -> BlockError {
    BlockError::invalid(format!("operation {operation:?} is not known; known: {}", OPERATIONS.join(", ")))
}

fn seconds_to_live(metadata: &Metadata) -> Result<Option<u32>, BlockError> {
    match value(metadata, "ttlInSeconds").filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => match text.parse() {
            Ok(seconds) if seconds > 0 => Ok(Some(seconds)),
            _ => Err(BlockError::invalid("ttlInSeconds must be a positive number of seconds")),
        },
    }
}
