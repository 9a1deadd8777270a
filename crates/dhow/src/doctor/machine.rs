//! Processor, kernel, limits of the process, and whether the Wasm engine starts with them.

use super::Check;
use dhow_engine::{Engine, EngineOptions};
use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Files that a busy host has open: connections, modules, databases.
const ENOUGH_FILES: u64 = 4096;

/// Linux' own default of `vm.max_map_count`.
const USUAL_MAPS: u64 = 65_530;

pub(super) fn checks() -> Vec<Check> {
    vec![engine(), address_space(), memory_maps(), open_files(), kernel(), protection_keys()]
}

/// Starts the engine as a host does. What it says in its log on the way stands in the check.
fn engine() -> Check {
    let name = "WebAssembly engine";
    let heard = Heard::default();
    let writer = heard.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .without_time()
        .with_level(false)
        .with_target(false)
        .with_writer(move || writer.clone())
        .finish();
    let engine = tracing::subscriber::with_default(subscriber, || Engine::new(EngineOptions::default()));
    let instances = EngineOptions::default().max_instances;
    match (engine, heard.text()) {
        (Err(error), _) => Check::missing(name, format!("{error:#}"), "raise `ulimit -v` and `ulimit -u`"),
        (Ok(_), warning) if !warning.is_empty() => {
            Check::note(name, warning, "it works, and starting instances is slower: raise `ulimit -v`")
        }
        (Ok(_), _) => Check::ok(
            name,
            format!("wasmtime {}, address space for {instances} instances", env!("DHOW_WASMTIME_VERSION")),
        ),
    }
}

fn address_space() -> Check {
    let name = "address space (ulimit -v)";
    match soft_limit("Max address space") {
        Some(bytes) => Check::note(
            name,
            crate::text::size(bytes),
            "instances reserve much address space and little memory: `ulimit -v unlimited`",
        ),
        None => Check::ok(name, "unlimited"),
    }
}

fn memory_maps() -> Check {
    let name = "memory maps (vm.max_map_count)";
    match number("/proc/sys/vm/max_map_count") {
        Some(count) if count < USUAL_MAPS => Check::note(
            name,
            count.to_string(),
            format!("for many instances: sysctl -w vm.max_map_count={USUAL_MAPS}"),
        ),
        Some(count) => Check::ok(name, count.to_string()),
        None => Check::note(name, "not known", ""),
    }
}

fn open_files() -> Check {
    let name = "open files (ulimit -n)";
    match soft_limit("Max open files") {
        Some(count) if count < ENOUGH_FILES => Check::note(
            name,
            count.to_string(),
            format!("for many connections: `ulimit -n {}`", ENOUGH_FILES * 16),
        ),
        Some(count) => Check::ok(name, count.to_string()),
        None => Check::ok(name, "unlimited"),
    }
}

/// The ioctl PAGEMAP_SCAN tells which pages a guest wrote, so that only those are cleared for the next one.
fn kernel() -> Check {
    let name = "kernel";
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match version(release) {
        Some(version) if version >= (6, 7) => Check::ok(name, format!("Linux {release}, with PAGEMAP_SCAN")),
        Some(_) => Check::note(
            name,
            format!("Linux {release}, without PAGEMAP_SCAN"),
            "instances start a little faster with 6.7 or later",
        ),
        None => Check::note(name, "not known", ""),
    }
}

/// Memory protection keys let instances of a pool share guard regions.
fn protection_keys() -> Check {
    let name = "memory protection keys";
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpu.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    match (has("pku"), has("ospke")) {
        (true, true) => Check::ok(name, "there, and switched on"),
        (true, false) => Check::note(name, "the processor has them, the kernel does not use them", ""),
        _ => Check::note(name, "the processor has none; instances need more address space", ""),
    }
}

/// A soft limit of this process (`man 5 proc_pid_limits`); `None` when there is none.
fn soft_limit(name: &str) -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// What a subscriber wrote.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Heard {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn kernel_versions_are_numbers_with_something_behind() {
        let cases = [
            ("6.7.0-arch1", Some((6, 7))),
            ("5.15.167.4-microsoft-standard-WSL2", Some((5, 15))),
            ("6.10-rc1", Some((6, 10))),
            ("", None),
        ];
        for (release, expected) in cases {
            assert_eq!(version(release), expected, "{release:?}");
        }
    }
}
