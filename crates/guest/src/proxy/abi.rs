//! The numbers of the proxy-wasm ABI (proxy-wasm/spec, abi-versions/v0.2.1).

use crate::memory::BadMemory;

/// What a host function answers; the numbers are those of all versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    NotFound = 1,
    BadArgument = 2,
    ParseFailure = 4,
    InvalidMemoryAccess = 6,
    Empty = 7,
    CasMismatch = 8,
    /// What SDKs expect where a request cannot be carried out, the grant for it missing included.
    InternalFailure = 10,
}

pub(super) const OK: u32 = 0;

/// What a callback wants: to go on.
pub(super) const CONTINUE: u32 = 0;

/// To go on, and to end the message with its headers.
pub(super) const CONTINUE_AND_END: u32 = 2;

/// The buffers that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BufferType {
    RequestBody,
    ResponseBody,
    /// Of a TCP stream, which there is none.
    Data,
    CallResponseBody,
    GrpcMessage,
    VmConfiguration,
    PluginConfiguration,
    /// Arguments of foreign functions; for Layotto what a function says about itself.
    CallData,
}

/// The maps that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MapType {
    RequestHeaders,
    RequestTrailers,
    ResponseHeaders,
    ResponseTrailers,
    GrpcInitialMetadata,
    GrpcTrailingMetadata,
    CallResponseHeaders,
    CallResponseTrailers,
}

/// The two directions of an HTTP stream; TCP streams are never made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Response,
}

/// The result of a host function.
pub(super) fn code(result: Result<(), Status>) -> u32 {
    result.map_or_else(|status| status as u32, |()| OK)
}

// === impl Status ===

impl From<BadMemory> for Status {
    fn from(bad: BadMemory) -> Status {
        match bad {
            // Names of the blocks are text; other bytes are no mistake of the address.
            BadMemory::NotText(_) => Status::BadArgument,
            _ => Status::InvalidMemoryAccess,
        }
    }
}

impl TryFrom<u32> for BufferType {
    type Error = Status;

    fn try_from(number: u32) -> Result<BufferType, Status> {
        Ok(match number {
            0 => BufferType::RequestBody,
            1 => BufferType::ResponseBody,
            2 | 3 => BufferType::Data,
            4 => BufferType::CallResponseBody,
            5 => BufferType::GrpcMessage,
            6 => BufferType::VmConfiguration,
            7 => BufferType::PluginConfiguration,
            8 => BufferType::CallData,
            _ => return Err(Status::BadArgument),
        })
    }
}

impl TryFrom<u32> for MapType {
    type Error = Status;

    fn try_from(number: u32) -> Result<MapType, Status> {
        Ok(match number {
            0 => MapType::RequestHeaders,
            1 => MapType::RequestTrailers,
            2 => MapType::ResponseHeaders,
            3 => MapType::ResponseTrailers,
            4 => MapType::GrpcInitialMetadata,
            5 => MapType::GrpcTrailingMetadata,
            6 => MapType::CallResponseHeaders,
            7 => MapType::CallResponseTrailers,
            _ => return Err(Status::BadArgument),
        })
    }
}
