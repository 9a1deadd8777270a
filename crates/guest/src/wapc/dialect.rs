//! Which of the ABIs a module speaks, and under which names it knows operations.
//!
//! The ABI is in the imports. What it does not tell is found among the module's data: names of operations stand there as
//! text. A module that shows none is taken for one of the kind that was usual with its ABI.

use super::format::Format;
use super::{first, second};
use dhow_engine::Inspection;
use wasmtime::Module;

/// Where the imports of all ABIs are.
pub(super) const WAPC: &str = "wapc";
pub(super) const WASCAP: &str = "wascap";

/// How calls cross the border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    First,
    Second,
    Current,
}

/// How a module wants to be spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) generation: Generation,
    pub(super) format: Format,
    /// The operation of an HTTP request.
    pub(super) handle_request: &'static str,
    /// The operation of a message.
    pub(super) deliver_message: &'static str,
    /// Whether the module is well.
    pub(super) health_request: &'static str,
}

const PLAIN: Dialect = Dialect {
    generation: Generation::Current,
    format: Format::MessagePack,
    handle_request: "HandleRequest",
    deliver_message: "DeliverMessage",
    health_request: "HealthRequest",
};

impl Dialect {
    pub(super) fn of(module: &Module, inspection: &Inspection) -> Dialect {
        let host_call = module.imports().find(|import| import.name() == "__host_call");
        let parameters = host_call.and_then(|import| Some(import.ty().func()?.params().len()));
        let is_first = module.get_export("__wascap_malloc").is_some();
        let is_wascap = module.imports().any(|import| import.module() == WASCAP);
        let generation = match parameters {
            Some(first::PARAMETERS) => Generation::First,
            Some(second::PARAMETERS) => Generation::Second,
            Some(_) => Generation::Current,
            None if is_first => Generation::First,
            None if is_wascap => Generation::Second,
            None => Generation::Current,
        };
        Dialect::named(generation, |name| inspection.operations.contains(&name))
    }

    /// `has` says whether a name is among the module's data.
    fn named(generation: Generation, has: impl Fn(&'static str) -> bool) -> Dialect {
        let plain = Dialect { generation, ..PLAIN };
        let of_wascc = has("wascc:http_server!HandleRequest") || has("wascc:messaging!DeliverMessage");
        match generation {
            Generation::First => Dialect { format: Format::Protobuf, ..plain },
            Generation::Current if has("HandleMessage") && !has("DeliverMessage") => {
                Dialect { deliver_message: "HandleMessage", ..plain }
            }
            Generation::Current => plain,
            Generation::Second if of_wascc => Dialect {
                format: Format::Protobuf,
                handle_request: "wascc:http_server!HandleRequest",
                deliver_message: "wascc:messaging!DeliverMessage",
                ..plain
            },
            // Names of fields, which only MessagePack has.
            Generation::Second if has("statusCode") || has("replyTo") => plain,
            Generation::Second => Dialect {
                format: Format::Protobuf,
                handle_request: "wascap:httpserver!HandleRequest",
                deliver_message: "wascap:messaging!DeliverMessage",
                health_request: "wascap:httpsrv!HealthRequest",
                ..plain
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_module_and_else_from_the_time_of_its_abi() {
        let cases: [(Generation, &[&str], Format, &str, &str); 7] = [
            (Generation::First, &[], Format::Protobuf, "HandleRequest", "DeliverMessage"),
            (Generation::Current, &[], Format::MessagePack, "HandleRequest", "DeliverMessage"),
            (Generation::Current, &["HandleMessage"], Format::MessagePack, "HandleRequest", "HandleMessage"),
            (
                Generation::Current,
                &["HandleMessage", "DeliverMessage"],
                Format::MessagePack,
                "HandleRequest",
                "DeliverMessage",
            ),
            (
                Generation::Second,
                &[],
                Format::Protobuf,
                "wascap:httpserver!HandleRequest",
                "wascap:messaging!DeliverMessage",
            ),
            (
                Generation::Second,
                &["wascc:http_server!HandleRequest"],
                Format::Protobuf,
                "wascc:http_server!HandleRequest",
                "wascc:messaging!DeliverMessage",
            ),
            (Generation::Second, &["statusCode"], Format::MessagePack, "HandleRequest", "DeliverMessage"),
        ];
        for (generation, names, format, handle, deliver) in cases {
            let dialect = Dialect::named(generation, |name| names.contains(&name));
            let found = (dialect.format, dialect.handle_request, dialect.deliver_message);
            assert_eq!(found, (format, handle, deliver), "{generation:?} {names:?}");
        }
    }
}
