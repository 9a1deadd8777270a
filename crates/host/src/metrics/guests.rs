//! Numbers that guests keep by themselves (proxy-wasm), under one name a kind: what a guest calls its own is a label.

use super::Families;
use dhow_guest::{MeterError, MeterKind, Meters};
use parking_lot::RwLock;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

/// Metrics of one app: labels can come from outside, and memory is not theirs to take.
const MAX_METRICS: usize = 1000;

/// The metrics of all guests.
#[derive(Clone)]
pub(super) struct GuestFamilies {
    counters: IntCounterVec,
    gauges: IntGaugeVec,
    histograms: HistogramVec,
}

/// The metrics of one app's guests; a metric's number is its place.
pub(super) struct GuestMeters {
    app_id: String,
    families: GuestFamilies,
    known: RwLock<Vec<(String, Metric)>>,
}

enum Metric {
    Counter(IntCounter),
    Gauge(IntGauge),
    Histogram(Histogram),
}

// === impl GuestFamilies ===

impl GuestFamilies {
    pub(super) fn new(families: &Families<'_>) -> Result<GuestFamilies, prometheus::Error> {
        let labels = &["app_id", "name"];
        Ok(GuestFamilies {
            counters: families.counter("dhow_guest_counter_total", "Counters that guests keep.", labels)?,
            gauges: families.gauge("dhow_guest_gauge", "Gauges that guests keep.", labels)?,
            histograms: families.latency("dhow_guest_histogram", "Histograms that guests keep.", labels)?,
        })
    }

    pub(super) fn app(&self, app_id: &str) -> GuestMeters {
        GuestMeters { app_id: app_id.to_owned(), families: self.clone(), known: RwLock::default() }
    }
}

// === impl GuestMeters ===

impl GuestMeters {
    fn with<T>(&self, id: u32, act: impl FnOnce(&Metric) -> Result<T, MeterError>) -> Result<T, MeterError> {
        let known = self.known.read();
        // Zero is no number of a metric.
        let (_, metric) = known.get((id as usize).wrapping_sub(1)).ok_or(MeterError::Unknown)?;
        act(metric)
    }
}

impl Meters for GuestMeters {
    fn define(&self, kind: MeterKind, name: &str) -> Option<u32> {
        let number = |index: usize| u32::try_from(index + 1).ok();
        let mut known = self.known.write();
        if let Some(index) = known.iter().position(|(found, _)| found == name) {
            let same = matches!(
                (&known[index].1, kind),
                (Metric::Counter(_), MeterKind::Counter)
                    | (Metric::Gauge(_), MeterKind::Gauge)
                    | (Metric::Histogram(_), MeterKind::Histogram)
            );
            return same.then(|| number(index)).flatten();
        }
        if known.len() >= MAX_METRICS {
            return None;
        }
        let labels = &[self.app_id.as_str(), name];
        let families = &self.families;
        let metric = match kind {
            MeterKind::Counter => Metric::Counter(families.counters.with_label_values(labels)),
            MeterKind::Gauge => Metric::Gauge(families.gauges.with_label_values(labels)),
            MeterKind::Histogram => Metric::Histogram(families.histograms.with_label_values(labels)),
        };
        known.push((name.to_owned(), metric));
        number(known.len() - 1)
    }

    fn record(&self, id: u32, value: u64) -> Result<(), MeterError> {
        self.with(id, |metric| {
            match metric {
                Metric::Counter(counter) => counter.inc_by(value),
                Metric::Gauge(gauge) => gauge.set(value.cast_signed()),
                Metric::Histogram(histogram) => histogram.observe(value as f64),
            }
            Ok(())
        })
    }

    fn increment(&self, id: u32, by: i64) -> Result<(), MeterError> {
        self.with(id, |metric| match metric {
            Metric::Counter(counter) => {
                counter.inc_by(u64::try_from(by).map_err(|_| MeterError::Kind)?);
                Ok(())
            }
            Metric::Gauge(gauge) => {
                gauge.add(by);
                Ok(())
            }
            Metric::Histogram(_) => Err(MeterError::Kind),
        })
    }

    fn value(&self, id: u32) -> Result<u64, MeterError> {
        self.with(id, |metric| match metric {
            Metric::Counter(counter) => Ok(counter.get()),
            Metric::Gauge(gauge) => Ok(gauge.get().cast_unsigned()),
            Metric::Histogram(_) => Err(MeterError::Kind),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Families, GuestFamilies, MAX_METRICS};
    use dhow_guest::{MeterError, MeterKind, Meters};
    use dhow_resources::configuration::telemetry;
    use prometheus::Registry;

    #[test]
    fn metrics_are_found_again_by_name_and_bounded() {
        let registry = Registry::new();
        let settings = telemetry::Metrics::default();
        let families = GuestFamilies::new(&Families::new(&registry, &settings)).unwrap();
        let meters = families.app("a");
        let counter = meters.define(MeterKind::Counter, "calls.total").unwrap();
        assert_eq!(meters.define(MeterKind::Counter, "calls.total"), Some(counter));
        assert_eq!(meters.define(MeterKind::Gauge, "calls.total"), None);
        meters.increment(counter, 2).unwrap();
        meters.record(counter, 3).unwrap();
        assert_eq!(meters.value(counter), Ok(5));
        assert_eq!(meters.increment(counter, -1), Err(MeterError::Kind));
        let gauge = meters.define(MeterKind::Gauge, "g").unwrap();
        meters.record(gauge, 7).unwrap();
        meters.increment(gauge, -3).unwrap();
        assert_eq!(meters.value(gauge), Ok(4));
        let histogram = meters.define(MeterKind::Histogram, "h").unwrap();
        meters.record(histogram, 1).unwrap();
        assert_eq!(meters.increment(histogram, 1), Err(MeterError::Kind));
        assert_eq!(meters.value(histogram), Err(MeterError::Kind));
        for unknown in [0, 99, u32::MAX] {
            assert_eq!(meters.value(unknown), Err(MeterError::Unknown));
        }
        for number in 0..MAX_METRICS {
            meters.define(MeterKind::Counter, &number.to_string());
        }
        assert_eq!(meters.define(MeterKind::Counter, "one more"), None);
    }
}
