//! Steps of workflows: what a step costs beside its own work, and its work beside the same natively.
//!
//! `examples/desaturate` is one program for WebAssembly and for the machine; it takes its own time. Steps and processes run
//! two at a time, on both cores.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Settings;
use super::client::Client;
use super::peers::Places;
use super::report::{Finding, Report, Target, Unit, median};
use super::server::{Cores, Server, free_port};

/// How many steps work at the same workflow.
const SIZES: [usize; 3] = [1, 10, 100];

/// The work may take so many times as long as natively.
const RATIO: f64 = 1.5;

/// Milliseconds that a step may cost beside its work, asked through the plugin.
const OVERHEAD: f64 = 10.0;

/// 200 steps a second.
const STEP: f64 = 5.0;

/// Steps that do nothing.
const NOTHING: usize = 1_000;

/// As many at once as there are cores.
const AT_ONCE: usize = 2;

const PICTURE: (&str, &str) = ("1600", "1200");

/// Takes the colours out of a picture, as steps and as processes in turn.
pub fn desaturate(
    places: &Places,
    cores: Cores,
    settings: &Settings,
    report: &mut Report,
) -> Result<(), String> {
    let native = places.native("examples/desaturate/picture", "picture")?;
    let folder = folder(places, "desaturate")?;
    let picture = folder.join("picture.jpg");
    let drawn = on_both(cores, &native).args(["draw", PICTURE.0, PICTURE.1]).arg(&picture).output();
    output("drawing a picture", drawn)?;
    let sizes = if settings.quick { &SIZES[..2] } else { &SIZES[..] };
    for &count in sizes {
        let (mut steps, mut processes) = (Vec::new(), Vec::new());
        // The first round fills the caches and is not counted.
        for round in 0..=settings.rounds.min(5) {
            let mut times = (Vec::new(), side_by_side(cores, &native, &picture, &folder, count)?);
            if let Some(dhow) = &places.dhow {
                times.0 = workflow_times(places, cores, dhow, &folder, count)?;
            }
            if round > 0 {
                steps.push(median(&times.0));
                processes.push(median(&times.1));
            }
        }
        report.finding(Finding {
            row: format!("desaturate, {count} steps"),
            measure: "processing time of a step".to_owned(),
            unit: Unit::Milliseconds,
            ours: places.dhow.is_some().then(|| median(&steps)),
            peer: Some(("the same, native".to_owned(), median(&processes))),
            target: Target::Ratio(RATIO),
        });
        report
            .detail(json!({ "row": "desaturate", "steps": count, "ms_wasm": steps, "ms_native": processes }));
    }
    Ok(())
}

/// Milliseconds of each process.
fn side_by_side(
    cores: Cores,
    program: &Path,
    picture: &Path,
    folder: &Path,
    count: usize,
) -> Result<Vec<f64>, String> {
    let one = |number: usize| -> Result<f64, String> {
        let to = folder.join(format!("gray-{}.jpg", number % AT_ONCE));
        let ended = on_both(cores, program).arg("desaturate").arg(picture).arg(to).output();
        milliseconds(output("desaturating", ended)?.trim())
    };
    let lane = |first: usize| (first..count).step_by(AT_ONCE).map(one).collect::<Result<Vec<f64>, String>>();
    thread::scope(|scope| {
        let lane = &lane;
        let lanes: Vec<_> = (0..AT_ONCE).map(|first| scope.spawn(move || lane(first))).collect();
        let mut times = Vec::new();
        for lane in lanes {
            times.extend(lane.join().map_err(|_| "a lane panicked".to_owned())??);
        }
        Ok(times)
    })
}

fn workflow_times(
    places: &Places,
    cores: Cores,
    dhow: &Path,
    folder: &Path,
    count: usize,
) -> Result<Vec<f64>, String> {
    let yaml = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/desaturate/desaturate.yaml");
    let (count, guest) = (format!("count={count}"), guest(places)?);
    let size = [format!("width={}", PICTURE.0), format!("height={}", PICTURE.1)];
    let mut command = on_both(cores, dhow);
    environment(&mut command, places, folder);
    command.args([
        "workflow",
        "run",
        "--parallel",
        "2",
        "-p",
        &count,
        "-p",
        &size[0],
        "-p",
        &size[1],
        "--image",
    ]);
    command.arg(format!("build/picture.wasm={}", guest.display())).arg(yaml);
    let said = output("dhow workflow run", command.output())?;
    let list = said.trim().strip_prefix("microseconds=").ok_or(format!("dhow workflow run said {said:?}"))?;
    let list: Value = serde_json::from_str(list).map_err(|error| format!("{list}: {error}"))?;
    let time = |value: &Value| match value {
        Value::String(text) => milliseconds(text),
        other => milliseconds(&other.to_string()),
    };
    list.as_array().into_iter().flatten().map(time).collect()
}

/// What a step costs beside its work: one that does nothing, asked for through the plugin, one after the other.
pub fn overhead(
    places: &Places,
    cores: Cores,
    settings: &Settings,
    report: &mut Report,
) -> Result<(), String> {
    let Some(dhow) = &places.dhow else { return Ok(()) };
    let (folder, guest, addr) = (folder(places, "plugin")?, guest(places)?, free_port()?);
    let mut command = Command::new(dhow);
    environment(&mut command, places, &folder);
    command.args(["argo", "plugin", "--no-token", "--addr", &addr.to_string()]);
    let mut server = Server::start("dhow", command, addr, Some(cores.server), &places.scratch)?;
    server.wait_ready("/healthz", Duration::from_secs(60))?;
    let mut client = Client::connect(addr)?;
    let mut times = Vec::new();
    for number in 0..if settings.quick { 100 } else { 500 } {
        let args = json!(["nothing"]);
        let wasm = json!({"image": guest, "args": args, "env": {"NUMBER": number.to_string()}});
        let template = json!({"name": "nothing", "plugin": {"wasm": wasm}});
        let metadata = json!({"name": "bench", "namespace": "default", "uid": "bench"});
        let body = json!({"workflow": {"metadata": metadata}, "template": template}).to_string();
        let reply = client.post_json("/api/v1/template.execute", &body)?;
        let told: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        if told["node"]["phase"] != "Succeeded" {
            return Err(format!("the plugin answered {} {told}", reply.status));
        }
        // The first one is compiled.
        if number > 0 {
            times.push(reply.time.as_secs_f64() * 1e3);
        }
    }
    report.finding(Finding {
        row: "step through the plugin".to_owned(),
        measure: "a step that does nothing, p50".to_owned(),
        unit: Unit::Milliseconds,
        ours: Some(median(&times)),
        peer: None,
        target: Target::Value(OVERHEAD),
    });
    report.detail(json!({ "row": "plugin", "ms": times }));
    server.stop();
    Ok(())
}

/// A thousand steps that do nothing, from the start of the process to its end.
pub fn nothing(
    places: &Places,
    cores: Cores,
    settings: &Settings,
    report: &mut Report,
) -> Result<(), String> {
    let Some(dhow) = &places.dhow else { return Ok(()) };
    let (folder, guest) = (folder(places, "nothing")?, guest(places)?);
    let workflow = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"generateName": "nothing-"},
        "spec": {"entrypoint": "main", "templates": [
            {"name": "main", "steps": [[{"name": "step", "template": "step", "withSequence": {"count": NOTHING.to_string()}}]]},
            {"name": "step", "wasm": {"image": guest, "args": ["nothing"]}},
        ]},
    });
    let file = folder.join("nothing.yaml");
    std::fs::write(&file, workflow.to_string()).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut times = Vec::new();
    for round in 0..=if settings.quick { 1 } else { 3 } {
        let mut command = on_both(cores, dhow);
        environment(&mut command, places, &folder);
        let begun = Instant::now();
        output("dhow workflow run", command.args(["workflow", "run"]).arg(&file).output())?;
        if round > 0 {
            times.push(begun.elapsed().as_secs_f64() * 1e3 / NOTHING as f64);
        }
    }
    report.finding(Finding {
        row: format!("{NOTHING} steps"),
        measure: "time a step (1 / rate)".to_owned(),
        unit: Unit::Milliseconds,
        ours: Some(median(&times)),
        peer: None,
        target: Target::Value(STEP),
    });
    report.detail(json!({ "row": "steps", "count": NOTHING, "ms_per_step": times }));
    Ok(())
}

fn folder(places: &Places, name: &str) -> Result<PathBuf, String> {
    let folder = places.scratch.join(name);
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

fn guest(places: &Places) -> Result<PathBuf, String> {
    let file = places.guests.join("desaturate-picture.wasm");
    if file.is_file() {
        Ok(file)
    } else {
        Err(format!("no {}; run `cargo xtask guests desaturate`", file.display()))
    }
}

/// A program that may use both cores; this process has only one.
fn on_both(cores: Cores, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &format!("{},{}", cores.server, cores.load)]).arg(program).stdin(Stdio::null());
    command
}

fn environment(command: &mut Command, places: &Places, folder: &Path) {
    command.env("XDG_CACHE_HOME", &places.code_cache).env("XDG_STATE_HOME", folder).env_remove("RUST_LOG");
    command.current_dir(folder);
}

fn output(what: &str, ended: std::io::Result<std::process::Output>) -> Result<String, String> {
    let ended = ended.map_err(|error| format!("{what}: {error}"))?;
    match ended.status.success() {
        true => Ok(String::from_utf8_lossy(&ended.stdout).into_owned()),
        false => Err(format!("{what}: {}", String::from_utf8_lossy(&ended.stderr))),
    }
}

fn milliseconds(microseconds: &str) -> Result<f64, String> {
    let microseconds: f64 = microseconds.parse().map_err(|_| format!("{microseconds:?} is no time"))?;
    Ok(microseconds / 1e3)
}
