//! `wasi:config`: the configuration values of the app's manifest, under every name that the package had.

use crate::store::GuestState;
use dhow_blocks::scope::Scope;
use wasmtime::component::{HasData, Linker};

pub(crate) struct Config<'a>(&'a Scope);

struct HasConfig;

pub(crate) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    fn view(state: &mut GuestState) -> Config<'_> {
        Config(&state.setup.scope)
    }
    rc1::wasi::config::store::add_to_linker::<_, HasConfig>(linker, view)?;
    draft::wasi::config::store::add_to_linker::<_, HasConfig>(linker, view)?;
    draft::wasi::config::runtime::add_to_linker::<_, HasConfig>(linker, view)?;
    dated::wasi::config::store::add_to_linker::<_, HasConfig>(linker, view)
}

impl HasData for HasConfig {
    type Data<'a> = Config<'a>;
}

impl Config<'_> {
    fn value(&self, key: &str) -> Option<String> {
        self.0.config.get(key).cloned()
    }

    fn values(&self) -> Vec<(String, String)> {
        self.0.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// The bindings of one version, in a module of their own.
macro_rules! version {
    ($module:ident, $path:tt) => {
        #[allow(missing_docs, unreachable_pub, clippy::all)]
        mod $module {
            wasmtime::component::bindgen!({
                path: $path,
                world: "wasi:config/imports",
                imports: { default: trappable },
            });
        }
    };
}

/// An interface over [`Config`]; they differ in their names only.
macro_rules! interface {
    ($($interface:ident)::+, $error:ident) => {
        impl $($interface)::+::Host for Config<'_> {
            fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, $($interface)::+::$error>> {
                Ok(Ok(self.value(&key)))
            }

            fn get_all(
                &mut self,
            ) -> wasmtime::Result<Result<Vec<(String, String)>, $($interface)::+::$error>> {
                Ok(Ok(self.values()))
            }
        }
    };
}

version!(rc1, "../../wit/config");
version!(draft, "../../wit/config-draft");
version!(dated, "../../wit/config-draft-2024-09-27");

interface!(rc1::wasi::config::store, Error);
interface!(draft::wasi::config::store, Error);
interface!(draft::wasi::config::runtime, ConfigError);
interface!(dated::wasi::config::store, Error);
