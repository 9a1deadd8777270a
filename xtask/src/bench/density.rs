//! Memory of a host in which many apps are registered and idle.

use std::time::{Duration, Instant};

use serde_json::json;

use super::apps::{Folder, route};
use super::client::Client;
use super::peers::Places;
use super::report::{Finding, Report, Target, Unit};
use super::server::{Cores, Server};
use super::{MIB, Settings};

/// How many apps, and the most resident memory in MiB.
const SIZES: &[(usize, Target)] = &[(1_000, Target::Value(128.0)), (10_000, Target::None)];

/// Resident memory of a host with 1,000 and with 10,000 idle apps.
pub fn measure(places: &Places, _: Cores, settings: &Settings, report: &mut Report) -> Result<(), String> {
    let Some(dhow) = &places.dhow else { return Ok(()) };
    let module = places.guest("hello")?;
    let module = module.to_str().ok_or_else(|| format!("{} is not UTF-8", module.display()))?;
    let sizes = if settings.quick { &SIZES[..1] } else { SIZES };
    for (count, target) in sizes {
        let mut folder = Folder::new(places, &format!("density-{count}"))?;
        for number in 0..*count {
            folder.app(&format!("app{number:05}"), module, &route(number), &[]);
        }
        let host = folder.start(dhow, None, &route(0))?;
        // The last one answers, too: they are all registered.
        let last = Client::connect(host.server.addr)?.get(&route(count - 1))?;
        if last.status != 200 {
            return Err(format!("app {} of {count} answered with status {}", count - 1, last.status));
        }
        let resident = settled(&host.server)?;
        let ready_ms = host.ready_after.as_secs_f64() * 1e3;
        report.detail(
            json!({ "row": "density", "apps": count, "resident_mib": resident, "ready_ms": ready_ms }),
        );
        let finding = |measure: &str, unit, ours, target| Finding {
            row: format!("density, {count} apps"),
            measure: measure.to_owned(),
            unit,
            ours: Some(ours),
            peer: None,
            target,
        };
        report.finding(finding("resident memory, idle", Unit::Mebibytes, resident, *target));
        report.finding(finding("process start to first answer", Unit::Milliseconds, ready_ms, Target::None));
    }
    Ok(())
}

/// Resident MiB when it no longer changes: an allocator gives memory back some time after it was freed.
fn settled(server: &Server) -> Result<f64, String> {
    let deadline = Instant::now() + Duration::from_secs(15);
    let mut last = server.memory()?.resident;
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = server.memory()?.resident;
        if now.abs_diff(last) <= now / 200 || Instant::now() > deadline {
            return Ok(now as f64 / MIB);
        }
        last = now;
    }
}
