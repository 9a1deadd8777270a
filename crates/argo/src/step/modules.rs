//! Modules: fetched and compiled once for all steps that use them.

use dhow_artifacts::{DEFAULT_LIMIT, Source};
use dhow_engine::{Cache, Engine, Image, Program};
use dhow_host::{Host, Seal};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// A module, ready to be run.
pub struct Loaded {
    /// Its code.
    pub image: Image,
    /// What it is.
    pub program: Program,
    /// What its token says.
    pub seal: Seal,
}

type Slot = Arc<OnceCell<Arc<Loaded>>>;

/// Modules by the names that templates have for them.
pub struct Modules {
    engine: Engine,
    cache: Option<Cache>,
    /// Where relative paths begin.
    base: PathBuf,
    /// Names that stand for others.
    aliases: BTreeMap<String, String>,
    /// Decides which modules run.
    host: Option<Arc<Host>>,
    slots: parking_lot::Mutex<HashMap<String, Slot>>,
    /// One compilation uses all cores.
    compiling: Arc<parking_lot::Mutex<()>>,
}

impl Modules {
    /// No modules yet. `base` is the folder that relative paths begin in; `aliases` stand for images, so that a workflow
    /// that names a registry runs with a file.
    pub fn new(
        engine: Engine,
        cache: Option<Cache>,
        base: &Path,
        aliases: BTreeMap<String, String>,
    ) -> Modules {
        Modules {
            engine,
            cache,
            base: base.to_owned(),
            aliases,
            host: None,
            slots: parking_lot::Mutex::default(),
            compiling: Arc::default(),
        }
    }

    /// Lets a host look at their tokens.
    pub(super) fn sealed_by(self, host: Option<Arc<Host>>) -> Modules {
        Modules { host, ..self }
    }

    /// What runs them.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The module of that name. It stays the same as long as this process runs.
    pub async fn get(&self, name: &str) -> Result<Arc<Loaded>, String> {
        let slot = Arc::clone(self.slots.lock().entry(name.to_owned()).or_default());
        // Whoever comes while it is compiled waits; after a failure the next one tries again.
        slot.get_or_try_init(|| self.load(name)).await.map(Arc::clone)
    }

    async fn load(&self, name: &str) -> Result<Arc<Loaded>, String> {
        let wanted = self.aliases.get(name).map_or(name, String::as_str);
        let (source, is_alias) = (source(&self.base, wanted), wanted != name);
        let shown = shown(name);
        let failed = |error: &dyn std::fmt::Display| format!("module {shown}: {error}");
        let bytes = dhow_artifacts::read_module(&source, DEFAULT_LIMIT, |_, _| {}).await;
        let bytes = bytes.map_err(|error| match &source {
            Source::Oci(_) if !is_alias => {
                failed(&format_args!("{error}; --image {shown}=FILE takes a file in its place"))
            }
            _ => failed(&error),
        })?;
        if is_alias {
            tracing::debug!("{shown} is {source}");
        }
        let (engine, cache, compiling) =
            (self.engine.clone(), self.cache.clone(), Arc::clone(&self.compiling));
        let text = match dhow_engine::image::binary(&bytes).map_err(|error| failed(&error))? {
            Cow::Borrowed(_) => None,
            Cow::Owned(wasm) => Some(wasm.into()),
        };
        let wasm = text.unwrap_or(bytes);
        let seal = match &self.host {
            Some(host) => host.seal(wasm.clone()).await.map_err(|error| failed(&error))?,
            None => Seal::default(),
        };
        let compiled = tokio::task::spawn_blocking(move || -> Result<Loaded, String> {
            let program = Program::recognise(&wasm).map_err(|error| error.to_string())?;
            let _one_at_a_time = compiling.lock();
            let cached = match &cache {
                Some(cache) => {
                    Image::cached(&engine, cache, &program).map_err(|error| format!("{error:#}"))?
                }
                None => None,
            };
            let image = match cached {
                Some(image) => image,
                None => Image::compile(&engine, cache.as_ref(), &program, &wasm)
                    .map_err(|error| error.to_string())?,
            };
            Ok(Loaded { image, program, seal })
        });
        let loaded = compiled.await.unwrap_or_else(|panicked| Err(panicked.to_string()));
        loaded.map(Arc::new).map_err(|error| failed(&error))
    }

    /// Whether a step of that module can begin at once.
    pub fn has(&self, name: &str) -> bool {
        self.slots.lock().get(name).is_some_and(|slot| slot.initialized())
    }
}

/// Where a module is: a path (with a dot or slash first, or `.wasm` or `.wat` at the end) that begins in `base`, a URL,
/// or else an image of a registry.
pub(crate) fn source(base: &Path, name: &str) -> Source {
    let is_path = name.starts_with(['.', '/']) || name.ends_with(".wasm") || name.ends_with(".wat");
    if name.contains("://") {
        return Source::parse(name);
    }
    if is_path { Source::Path(base.join(name)) } else { Source::parse(&format!("oci://{name}")) }
}

/// A module's name for messages: user name, password and query of a URL may be secrets.
pub(super) fn shown(name: &str) -> String {
    if name.contains("://") { Source::parse(name).to_string() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn secrets_in_a_name_are_not_shown() {
        let cases = [
            ("https://me:hunter2@example.com:8080/a.wasm?sig=hunter2", "https://example.com:8080/a.wasm"),
            ("oci://example.com/a:1", "oci://example.com/a:1"),
            ("example.com/a@sha256:0", "example.com/a@sha256:0"),
            ("./a?b.wasm", "./a?b.wasm"),
        ];
        for (name, expected) in cases {
            assert_eq!(shown(name), expected);
        }
    }
}
