//! Artifacts: in one place each, packed and permitted in a way that there is.

use super::Findings;
use crate::artifacts::Artifact;

/// What says where an artifact is.
const LOCATIONS: [&str; 10] =
    ["artifactory", "azure", "gcs", "git", "hdfs", "http", "oss", "plugin", "raw", "s3"];

pub(super) fn check(artifacts: &[Artifact], path: &str, findings: &mut Findings<'_>) {
    for (index, artifact) in artifacts.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let known = artifact.location.keys().map(String::as_str).filter(|field| LOCATIONS.contains(field));
        let places: Vec<&str> = known.collect();
        if places.len() > 1 {
            let message = format!("is in several places: {}", places.join(", "));
            findings.add(&path, message, "expected one of them");
        }
        let tar = artifact.archive.as_ref().and_then(|archive| archive.tar.as_ref());
        if let Some(level) =
            tar.and_then(|tar| tar.compression_level).filter(|level| !(-1..=9).contains(level))
        {
            let field = format!("{path}.archive.tar.compressionLevel");
            findings.add(&field, format!("{level} is no level"), "expected 0 to 9, or -1 for gzip's own");
        }
        if let Some(mode) = artifact.mode.filter(|mode| *mode > 0o777) {
            let message = format!("{mode} has more bits than permissions have");
            findings.add(&format!("{path}.mode"), message, "expected at most 0777, which is 511");
        }
    }
}
