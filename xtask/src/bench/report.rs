//! What a bench run found: the table of targets, and the same with every figure as JSON.

use std::path::Path;

use serde_json::{Value, json};

/// One comparison with a target.
pub struct Finding {
    /// Row and circumstances: `hello c=16`.
    pub row: String,
    /// What was measured, for whom.
    pub measure: String,
    /// Unit of both figures.
    pub unit: Unit,
    /// dhow's figure; none when dhow was left out.
    pub ours: Option<f64>,
    /// The peer's name and figure.
    pub peer: Option<(String, f64)>,
    /// What is wanted.
    pub target: Target,
}

/// What a finding is held against.
#[derive(Clone, Copy)]
pub enum Target {
    /// dhow's figure divided by the peer's is at most this.
    Ratio(f64),
    /// dhow's figure is at most this.
    Value(f64),
    /// Nothing: reported only.
    None,
}

/// How figures are shown.
#[derive(Clone, Copy)]
pub enum Unit {
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// Mebibytes.
    Mebibytes,
}

/// Everything found in one run.
#[derive(Default)]
pub struct Report {
    findings: Vec<Finding>,
    failures: Vec<(String, String)>,
    details: Vec<Value>,
    disturbed: usize,
}

/// The middle one; the mean of the two middle ones of an even count; zero of none.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

// === impl Finding ===

impl Finding {
    /// dhow's figure divided by the peer's.
    pub fn ratio(&self) -> Option<f64> {
        let (_, peer) = self.peer.as_ref()?;
        self.ours.filter(|_| *peer > 0.0).map(|ours| ours / peer)
    }

    /// Whether the target is met; none without a target or without dhow.
    pub fn met(&self) -> Option<bool> {
        match self.target {
            Target::Ratio(most) => self.ratio().map(|ratio| ratio <= most),
            Target::Value(most) => self.ours.map(|ours| ours <= most),
            Target::None => None,
        }
    }

    fn cells(&self) -> [String; 7] {
        let target = match self.target {
            Target::Ratio(most) => format!("<= {most:.2} x"),
            Target::Value(most) => format!("<= {}", self.unit.show(most)),
            Target::None => String::new(),
        };
        let result = match self.met() {
            Some(true) => "ok",
            Some(false) => "MISS",
            None => "",
        };
        [
            self.row.clone(),
            self.measure.clone(),
            self.ours.map_or("-".to_owned(), |ours| self.unit.show(ours)),
            self.peer
                .as_ref()
                .map_or(String::new(), |(name, value)| format!("{} ({name})", self.unit.show(*value))),
            self.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}")),
            target,
            result.to_owned(),
        ]
    }

    fn json(&self) -> Value {
        let (target, kind) = match self.target {
            Target::Ratio(most) => (Some(most), "ratio"),
            Target::Value(most) => (Some(most), "value"),
            Target::None => (None, "none"),
        };
        json!({
            "row": self.row, "measure": self.measure, "unit": self.unit.name(), "dhow": self.ours,
            "peer": self.peer.as_ref().map(|(name, value)| json!({ "name": name, "value": value })),
            "ratio": self.ratio(), "target": { "kind": kind, "at_most": target }, "met": self.met(),
        })
    }
}

// === impl Unit ===

impl Unit {
    fn show(self, value: f64) -> String {
        let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
        format!("{value:.digits$} {}", self.name())
    }

    fn name(self) -> &'static str {
        match self {
            Self::Microseconds => "µs",
            Self::Milliseconds => "ms",
            Self::Mebibytes => "MiB",
        }
    }
}

// === impl Report ===

impl Report {
    /// Adds a comparison.
    pub fn finding(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Adds figures that only the JSON shows.
    pub fn detail(&mut self, detail: Value) {
        self.details.push(detail);
    }

    /// A row that could not be measured.
    pub fn failure(&mut self, row: &str, reason: String) {
        println!("{row}: FAILED: {reason}");
        self.failures.push((row.to_owned(), reason));
    }

    /// A measurement during which other programs used the cores.
    pub fn disturbed(&mut self) {
        self.disturbed += 1;
    }

    /// Rows that could not be measured.
    pub fn failed(&self) -> usize {
        self.failures.len()
    }

    /// Targets that were measured and not met.
    pub fn missed(&self) -> usize {
        self.findings.iter().filter(|finding| finding.met() == Some(false)).count()
    }

    /// The table of all comparisons.
    pub fn print(&self) {
        let header = ["row", "measure", "dhow", "peer", "ratio", "target", "result"].map(str::to_owned);
        let mut rows = vec![header];
        rows.extend(self.findings.iter().map(Finding::cells));
        println!();
        print_table(&rows);
        for (row, reason) in &self.failures {
            println!("{row}: FAILED: {}", reason.lines().next().unwrap_or_default());
        }
        let met = self.findings.iter().filter(|finding| finding.met() == Some(true)).count();
        println!("\n{met} targets met, {} missed, {} rows failed", self.missed(), self.failed());
        if self.disturbed > 0 {
            println!(
                "{} measurements under load were disturbed by other programs: trust their CPU time, not their p99; \
                 measure again on a quiet machine",
                self.disturbed
            );
        }
    }

    /// Writes everything as JSON.
    pub fn write(&self, path: &Path, circumstances: &Value) -> Result<(), String> {
        let failures: Vec<Value> =
            self.failures.iter().map(|(row, reason)| json!({ "row": row, "reason": reason })).collect();
        let all = json!({
            "circumstances": circumstances,
            "findings": self.findings.iter().map(Finding::json).collect::<Vec<_>>(),
            "failures": failures,
            "disturbed": self.disturbed,
            "details": self.details,
        });
        let text = serde_json::to_string_pretty(&all).map_err(|e| e.to_string())?;
        std::fs::write(path, text + "\n").map_err(|e| format!("writing {}: {e}", path.display()))
    }
}

/// Columns as wide as their widest cell.
pub fn print_table<const N: usize>(rows: &[[String; N]]) {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in rows {
        let line: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", line.join("  ").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        for (values, expected) in
            [(&[][..], 0.0), (&[3.0], 3.0), (&[9.0, 1.0, 5.0], 5.0), (&[4.0, 1.0, 2.0, 100.0], 3.0)]
        {
            assert_eq!(median(values), expected, "{values:?}");
        }
    }

    #[test]
    fn a_target_is_met_up_to_and_including_its_limit() {
        let peer = Some(("serve".to_owned(), 40.0));
        for (ours, target, met) in [
            (Some(20.0), Target::Ratio(0.5), Some(true)),
            (Some(20.1), Target::Ratio(0.5), Some(false)),
            (Some(2.0), Target::Value(2.0), Some(true)),
            (Some(2.1), Target::Value(2.0), Some(false)),
            (Some(2.1), Target::None, None),
            (None, Target::Ratio(0.5), None),
            (None, Target::Value(2.0), None),
        ] {
            let finding = Finding {
                row: "hello".to_owned(),
                measure: "CPU".to_owned(),
                unit: Unit::Microseconds,
                ours,
                peer: peer.clone(),
                target,
            };
            assert_eq!(finding.met(), met, "{ours:?}");
        }
    }

    #[test]
    fn figures_keep_three_digits() {
        for (value, text) in [(0.444, "0.44 µs"), (16.04, "16.0 µs"), (494.4, "494 µs")] {
            assert_eq!(Unit::Microseconds.show(value), text);
        }
    }
}
