//! The two configured Wasmtime engines, and the memory they reserve.
//!
//! Two engines, because support for concurrent calls into one instance (component-model async, WASI 0.3)
//! makes every store dearer, and programs for WASI 0.2 and 0.1 have no use for it. The second engine is
//! made when the first WASI 0.3 component comes.

use crate::ticker::{Running, Ticker};
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

/// Which of the two Wasmtime engines a program needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// One call at a time into an instance: core modules and WASI 0.2 components.
    Plain,
    /// Concurrent calls into one instance: WASI 0.3 components.
    Concurrent,
}

/// What an operator may want to set.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Guests that can be alive at the same time, in each engine. Each reserves address space, not memory.
    pub max_instances: u32,
    /// Address space is reserved ahead for all instances and their pages are reused. Without, instances are
    /// mapped on demand: slower, for machines with little address space.
    pub pooling: bool,
    /// Bytes of a finished guest's memory that are zeroed for the next one instead of being given back to
    /// the system. Zeroing a page costs a fiftieth of faulting it in again.
    pub keep_resident: usize,
}

/// Compiles and runs guests. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    options: EngineOptions,
    plain: wasmtime::Engine,
    concurrent: OnceLock<wasmtime::Engine>,
    // Serialises the making of the second engine; the ticker sees it through `ticking`.
    making: Mutex<()>,
    ticking: Arc<Mutex<Vec<wasmtime::EngineWeak>>>,
    ticker: Ticker,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions { max_instances: 1000, pooling: true, keep_resident: 64 << 20 }
    }
}

impl Engine {
    /// Reserves address space and starts the thread that interrupts guests.
    ///
    /// When the address space that pooling wants is not to be had, falls back to on-demand allocation and
    /// says so in the log. Fails when even that is impossible, or no thread can be started.
    pub fn new(options: EngineOptions) -> Result<Engine, wasmtime::Error> {
        let plain = make(&options, Flavor::Plain)?;
        let ticking = Arc::new(Mutex::new(vec![plain.weak()]));
        let ticker = Ticker::start({
            let ticking = Arc::clone(&ticking);
            move || {
                for engine in ticking.lock().iter().filter_map(wasmtime::EngineWeak::upgrade) {
                    engine.increment_epoch();
                }
            }
        })?;
        let inner =
            Inner { options, plain, concurrent: OnceLock::new(), making: Mutex::new(()), ticking, ticker };
        Ok(Engine(Arc::new(inner)))
    }

    /// The Wasmtime engine of that flavor.
    pub fn wasmtime(&self, flavor: Flavor) -> Result<&wasmtime::Engine, wasmtime::Error> {
        match flavor {
            Flavor::Plain => Ok(&self.0.plain),
            Flavor::Concurrent => self.concurrent(),
        }
    }

    /// Says that a guest may run from now until the answer is dropped, so that it can be interrupted.
    pub fn running(&self) -> Running {
        self.0.ticker.running()
    }

    fn concurrent(&self) -> Result<&wasmtime::Engine, wasmtime::Error> {
        if let Some(engine) = self.0.concurrent.get() {
            return Ok(engine);
        }
        let _one_at_a_time = self.0.making.lock();
        if let Some(engine) = self.0.concurrent.get() {
            return Ok(engine);
        }
        let engine = make(&self.0.options, Flavor::Concurrent)?;
        self.0.ticking.lock().push(engine.weak());
        Ok(self.0.concurrent.get_or_init(|| engine))
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("options", &self.0.options).finish_non_exhaustive()
    }
}

fn make(options: &EngineOptions, flavor: Flavor) -> Result<wasmtime::Engine, wasmtime::Error> {
    let mut config = config(flavor);
    if options.pooling {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling(options)));
        match wasmtime::Engine::new(&config) {
            Ok(engine) => return Ok(engine),
            Err(error) => tracing::warn!(
                "cannot reserve address space for {} instances ({error:#}); allocating on demand, which is \
                 slower. Raise `ulimit -v`, or set a smaller number of instances",
                options.max_instances
            ),
        }
    }
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    wasmtime::Engine::new(&config)
}

/// Everything that has an influence on compiled code is here and the same for pooling and on-demand
/// allocation, so both share the compile cache.
fn config(flavor: Flavor) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.concurrency_support(flavor == Flavor::Concurrent);
    config.wasm_component_model_async(flavor == Flavor::Concurrent);
    config.parallel_compilation(true);
    // Copy-on-write images come straight out of the mapped code file or a memfd.
    config.memory_init_cow(true);
    config.wasm_backtrace_max_frames(std::num::NonZeroUsize::new(32));
    config
}

fn pooling(options: &EngineOptions) -> PoolingAllocationConfig {
    let instances = options.max_instances;
    let mut pool = PoolingAllocationConfig::new();
    // A component made of several core modules (JavaScript: main, shims, adapter) takes one component
    // instance and several of the rest.
    pool.total_component_instances(instances)
        // A core module whose host functions call it back needs a second one for that time.
        .total_stacks(instances.saturating_mul(2))
        .total_core_instances(instances.saturating_mul(8))
        .total_memories(instances.saturating_mul(2))
        .total_tables(instances.saturating_mul(4))
        .total_gc_heaps(instances)
        .table_elements(crate::limits::MAX_TABLE_ELEMENTS)
        .max_memories_per_module(4)
        .max_tables_per_module(8)
        .max_core_instance_size(4 << 20)
        .max_component_instance_size(4 << 20)
        .max_unused_warm_slots(instances)
        .linear_memory_keep_resident(options.keep_resident)
        .table_keep_resident(options.keep_resident)
        .pagemap_scan(Enabled::Auto)
        .memory_protection_keys(Enabled::Auto);
    pool
}
