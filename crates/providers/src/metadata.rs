//! Reading a component's metadata as Dapr does: names in any case, numbers and durations as text.

use crate::registry::OpenError;
use std::fmt;
use std::time::Duration;

/// One event after another, or several at once.
const CONCURRENCY: &[&str] = &["concurrencyMode", "concurrency"];

/// The fields of a provider that knows them better itself: none is unknown.
pub(crate) const ANY: &[&str] = &["*"];

/// A component as its resource describes it, with secrets already resolved.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ComponentSpec {
    /// The component's name, e.g. `statestore`.
    pub name: String,
    /// The component's type, e.g. `state.sqlite`.
    pub component_type: String,
    /// The version of the type, e.g. `v1`; empty means the first.
    pub version: String,
    /// Names and values. A value may be secret.
    pub metadata: Vec<(String, String)>,
}

/// A metadata field that the component's type does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownField {
    /// The component's name.
    pub component: String,
    /// The field as it is written.
    pub field: String,
    /// A known field that looks like it.
    pub nearest: Option<&'static str>,
}

// === impl ComponentSpec ===

impl ComponentSpec {
    /// The value of the first of these fields that is present and not empty.
    pub fn field(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| {
            let (_, value) = self.metadata.iter().find(|(field, _)| field.eq_ignore_ascii_case(name))?;
            Some(value.as_str()).filter(|value| !value.is_empty())
        })
    }

    /// A duration such as `20s`, `1m30s` or `500ms` (Go's format); a bare number counts seconds.
    pub fn duration(&self, names: &[&str]) -> Result<Option<Duration>, OpenError> {
        let Some(text) = self.field(names) else { return Ok(None) };
        match parse_duration(text) {
            Some(duration) => Ok(Some(duration)),
            None => Err(self.invalid(names, "a duration such as 20s, 1m30s or 500ms")),
        }
    }

    /// Whether the field says yes, in one of Dapr's spellings.
    pub fn truthy(&self, names: &[&str]) -> bool {
        self.field(names).is_some_and(is_truthy)
    }

    /// Whether the field says yes; `default` where it is not there.
    pub(crate) fn flag(&self, names: &[&str], default: bool) -> bool {
        if self.field(names).is_some() { self.truthy(names) } else { default }
    }

    /// A whole number of at most `largest`.
    pub(crate) fn number(
        &self,
        names: &[&str],
        largest: u64,
        expected: &'static str,
    ) -> Result<Option<u64>, OpenError> {
        let Some(text) = self.field(names) else { return Ok(None) };
        match text.trim().parse() {
            Ok(number) if number <= largest => Ok(Some(number)),
            _ => Err(self.invalid(names, expected)),
        }
    }

    /// Dapr's field `concurrencyMode`, with some brokers `concurrency`: whether one event is handled after another.
    pub(crate) fn is_single(&self, default: bool) -> Result<bool, OpenError> {
        match self.field(CONCURRENCY).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(default),
            Some("single") => Ok(true),
            Some("parallel") => Ok(false),
            Some(_) => Err(self.invalid(CONCURRENCY, "single or parallel")),
        }
    }

    /// An error of the backend while this component is opened.
    pub(crate) fn backend(&self, reason: impl Into<String>) -> OpenError {
        OpenError::Backend { component: self.name.clone(), reason: reason.into() }
    }

    /// An error about a field, without its value, which may be secret.
    pub(crate) fn invalid(&self, names: &[&str], expected: &'static str) -> OpenError {
        let field = names.first().copied().unwrap_or_default().to_owned();
        OpenError::InvalidMetadata { component: self.name.clone(), field, expected }
    }

    /// The fields that are not among the known ones.
    pub(crate) fn unknown_fields(&self, known: &[&'static str]) -> Vec<UnknownField> {
        let unknown = self
            .metadata
            .iter()
            .filter(|(field, _)| !known.iter().any(|name| name.eq_ignore_ascii_case(field)));
        unknown
            .map(|(field, _)| UnknownField {
                component: self.name.clone(),
                field: field.clone(),
                nearest: nearest(field, known.iter().copied()),
            })
            .collect()
    }
}

impl fmt::Debug for ComponentSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secret: names only.
        f.debug_struct("ComponentSpec")
            .field("name", &self.name)
            .field("component_type", &self.component_type)
            .field("version", &self.version)
            .field("metadata", &self.metadata.iter().map(|(field, _)| field).collect::<Vec<_>>())
            .finish()
    }
}

// === impl UnknownField ===

impl fmt::Display for UnknownField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "component {:?}: metadata field {:?} is not known and is ignored",
            self.component, self.field
        )?;
        match self.nearest {
            Some(nearest) => write!(f, "; did you mean {nearest:?}?"),
            None => Ok(()),
        }
    }
}

/// Whether the value says yes, in one of Dapr's spellings.
pub(crate) fn is_truthy(value: &str) -> bool {
    ["y", "yes", "true", "t", "on", "1"].iter().any(|yes| value.trim().eq_ignore_ascii_case(yes))
}

/// The known name that differs least from the given one, if any is close.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Two slips of a finger in three letters out of four are still the same word.
    const CLOSE: f64 = 0.6;
    let name = name.to_ascii_lowercase();
    let closeness = |known: &str| strsim::normalized_damerau_levenshtein(&name, &known.to_ascii_lowercase());
    let rated = known.map(|known| (closeness(known), known));
    rated.filter(|(close, _)| *close >= CLOSE).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

/// The text with `%` and two hexadecimal digits read as a byte; `None` where they are malformed or not UTF-8.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

/// Go's duration format without a sign, or a number of seconds. `None` for anything else.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_end =
            tail.find(|character: char| character.is_ascii_digit() || character == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()?;
        total = total.checked_add(part)?;
        rest = tail;
    }
    (!text.trim().is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("20s", Some(20_000)),
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("1.5h", Some(5_400_000)),
            ("20", Some(20_000)),
            (" 2s ", Some(2_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("", None),
            ("s", None),
            ("1", Some(1_000)),
            ("1x", None),
            ("-1s", None),
            ("1..5s", None),
            ("1s5", None),
            ("9999999999999999999999h", None),
            ("🐪", None),
        ] {
            assert_eq!(parse_duration(text), expected.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn fields_are_found_in_any_case_and_under_any_alias() {
        let metadata = [("URL", "a.db"), ("Empty", ""), ("disablewal", "Yes"), ("other", "no")];
        let metadata = metadata.map(|(field, value)| (field.to_owned(), value.to_owned())).into();
        let component = ComponentSpec { metadata, ..ComponentSpec::default() };
        assert_eq!(component.field(&["connectionString", "url"]), Some("a.db"));
        assert_eq!(component.field(&["empty"]), None);
        assert!(component.truthy(&["disableWAL"]));
        assert!(!component.truthy(&["other"]) && !component.truthy(&["absent"]));
    }

    #[test]
    fn debug_shows_no_value() {
        let metadata = vec![("password".to_owned(), "hunter2".to_owned())];
        let text = format!("{:?}", ComponentSpec { metadata, ..ComponentSpec::default() });
        assert!(text.contains("password") && !text.contains("hunter2"), "{text}");
    }
}
