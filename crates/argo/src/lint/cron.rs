//! When a CronWorkflow runs. Schedules are those of robfig's cron, as Argo reads them:
//! <https://pkg.go.dev/github.com/robfig/cron/v3#hdr-CRON_Expression_Format>.

use super::Findings;
use super::object::Object;
use crate::controller::duration;
use crate::expression::timezone;
use crate::manifest::json;
use dhow_resources::error::quote;
use serde_json::Value;

const POLICIES: [&str; 3] = ["Allow", "Forbid", "Replace"];

const NAMED: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

pub(super) fn check(object: &Object<'_>, findings: &mut Findings<'_>) {
    if object.workflow.kind != "CronWorkflow" {
        return;
    }
    let whole = json(object.root);
    let field = |name: &str| whole.pointer(&format!("/spec/{name}"));
    let text = |name: &str| field(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut schedules: Vec<(String, &str)> =
        text("schedule").map(|one| ("spec.schedule".to_owned(), one)).into_iter().collect();
    let several = field("schedules").and_then(Value::as_array).into_iter().flatten();
    schedules.extend(
        several
            .enumerate()
            .map(|(index, one)| (format!("spec.schedules[{index}]"), one.as_str().unwrap_or_default())),
    );
    if schedules.is_empty() {
        findings.add(
            "spec",
            "has no `schedules`",
            "expected when it runs, such as schedules: [\"0 7 * * *\"]",
        );
    }
    for (path, schedule) in schedules {
        if let Err(error) = parse(schedule) {
            findings.add(&path, error, "expected minute, hour, day of the month, month and day of the week");
        }
    }
    if let Some(error) = text("timezone").and_then(|zone| timezone(zone).err()) {
        findings.add("spec.timezone", error, "expected such as Europe/Berlin");
    }
    if let Some(policy) = text("concurrencyPolicy").filter(|policy| !POLICIES.contains(policy)) {
        let message = format!("{} is no policy", quote(policy));
        findings.add("spec.concurrencyPolicy", message, format!("expected one of {}", POLICIES.join(", ")));
    }
}

/// Whether a schedule is one.
fn parse(schedule: &str) -> Result<(), String> {
    let (zone, plain) = match schedule.strip_prefix("CRON_TZ=").or_else(|| schedule.strip_prefix("TZ=")) {
        Some(rest) => rest.split_once(' ').unwrap_or((rest, "")),
        None => ("", schedule),
    };
    timezone(zone)?;
    let plain = plain.trim();
    if let Some(every) = plain.strip_prefix("@every ") {
        return duration(every).map(|_| ());
    }
    if plain.starts_with('@') {
        let is_known = NAMED.contains(&plain);
        return if is_known { Ok(()) } else { Err(format!("{} is no schedule", quote(plain))) };
    }
    let fields: Vec<&str> = plain.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields[..] else {
        return Err(format!("{} has {} fields, not 5", quote(schedule), fields.len()));
    };
    for (field, least, most, names) in [
        (minute, 0, 59, &[][..]),
        (hour, 0, 23, &[]),
        (day, 1, 31, &[]),
        (month, 1, 12, &MONTHS),
        (weekday, 0, 6, &DAYS),
    ] {
        let is_right = field.split(',').all(|part| is_part(part, least, most, names));
        if !is_right {
            return Err(format!("{} is none of {least} to {most}", quote(field)));
        }
    }
    Ok(())
}

/// Whether it is `*`, a number, a range of numbers, or one of these with a step behind it.
fn is_part(part: &str, least: usize, most: usize, names: &[&str]) -> bool {
    let number = |text: &str| {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text)).map(|at| at + least);
        named.or_else(|| text.parse().ok()).filter(|number| (least..=most).contains(number))
    };
    let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
    let is_range = match range.split_once('-') {
        Some((from, to)) => number(from).zip(number(to)).is_some_and(|(from, to)| from <= to),
        None => matches!(range, "*" | "?") || number(range).is_some(),
    };
    is_range && step.is_none_or(|step| step.parse::<usize>().is_ok_and(|step| step > 0))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn schedules_are_those_of_argo() {
        for schedule in [
            "* * * * *",
            "0 7 * * mon-FRI",
            "*/15 0-6,12 1/2 jan ?",
            "@daily",
            "@every 1h30m",
            "TZ=Asia/Tokyo 0 7 * * *",
            "CRON_TZ=UTC @hourly",
        ] {
            assert_eq!(parse(schedule), Ok(()), "{schedule}");
        }
        for schedule in [
            "",
            "x",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 7",
            "5-1 * * * *",
            "*/0 * * * *",
            "@never",
            "@every soon",
            "TZ=No/Where * * * * *",
        ] {
            assert!(parse(schedule).is_err(), "{schedule}");
        }
    }
}
