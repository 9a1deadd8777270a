//! `wasi:config@0.2.0-rc.1`: the configuration values of the app's manifest.

use crate::store::GuestState;
use dhow_blocks::scope::Scope;
use wasmtime::component::{HasData, Linker};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit/config",
        world: "wasi:config/imports",
        imports: { default: trappable },
    });
}

use generated::wasi::config::store;

pub(crate) struct Config<'a>(&'a Scope);

struct HasConfig;

pub(crate) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    store::add_to_linker::<_, HasConfig>(linker, |state| Config(&state.setup.scope))
}

impl HasData for HasConfig {
    type Data<'a> = Config<'a>;
}

impl store::Host for Config<'_> {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, store::Error>> {
        Ok(Ok(self.0.config.get(&key).cloned()))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, store::Error>> {
        Ok(Ok(self.0.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect()))
    }
}
