//! Publishing from inside a guest, beside the same over the real loopback port; both into a broker in memory.

use serde_json::json;

use super::Settings;
use super::apps::Folder;
use super::client::Client;
use super::peers::Places;
use super::report::{Finding, Report, Target, Unit, median};
use super::server::Cores;
use super::state::ask;

const BROKER: &str = "\
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: messages
spec:
  type: pubsub.in-memory
  version: v1
";

/// Messages of one request, and of one run from outside.
const MESSAGES: usize = 2_000;

/// Measures both ways in turn.
pub fn measure(
    places: &Places,
    cores: Cores,
    settings: &Settings,
    report: &mut Report,
) -> Result<(), String> {
    let Some(dhow) = &places.dhow else { return Ok(()) };
    let guest = places.guest("publish")?;
    let module = guest.to_str().ok_or_else(|| format!("{} is not UTF-8", guest.display()))?;
    let mut folder = Folder::new(places, "publish")?;
    folder.app("publisher", module, "/", &[]);
    folder.grant("publisher", "publish", "messages");
    folder.file("resources/broker.yaml", BROKER.as_bytes())?;
    let host = folder.start(dhow, Some(cores.server), "/")?;
    let mut inside = Client::connect(host.server.addr)?;
    let mut outside = Client::connect(host.api)?;
    let (mut ours, mut port) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        ours.push(ask(&mut inside, &format!("/?n={MESSAGES}"))?);
        let mut times = Vec::with_capacity(MESSAGES);
        for _ in 0..MESSAGES {
            let reply = outside.post_json("/v1.0/publish/messages/orders", "{}")?;
            if reply.status != 204 {
                return Err(format!(
                    "publishing was answered with status {}: {}",
                    reply.status,
                    reply.text()
                ));
            }
            times.push(reply.time.as_secs_f64() * 1e6);
        }
        port.push(median(&times));
    }
    report.finding(Finding {
        row: "publish in-memory".to_owned(),
        measure: "by dhow:runtime, p50".to_owned(),
        unit: Unit::Microseconds,
        ours: Some(median(&ours)),
        peer: Some(("Dapr port, loopback".to_owned(), median(&port))),
        target: Target::Ratio(0.05),
    });
    report.detail(json!({ "row": "publish", "inside_us": ours, "loopback_us": port }));
    Ok(())
}
