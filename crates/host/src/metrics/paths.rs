//! What stands in the labels `path` and `method` of HTTP metrics.
//!
//! Rules: Dapr documentation, "Configure metrics", sections on high cardinality and path matching. Patterns are those
//! of Go's `ServeMux` (<https://pkg.go.dev/net/http#ServeMux>): `{name}` is one segment, `{name...}` and a slash at the
//! end are all that follow; the most specific pattern wins.

use dhow_resources::configuration::telemetry::HttpMetrics;
use http::Method;
use std::borrow::Cow;
use std::sync::LazyLock;

/// How paths and methods become labels.
#[derive(Debug)]
pub(super) struct Paths {
    increased: bool,
    exclude_verbs: bool,
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    text: String,
    segments: Vec<Segment>,
}

/// In the order of preference.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(String),
    One,
    Rest,
}

/// A method that nobody sends.
static OTHER: LazyLock<Method> = LazyLock::new(|| Method::from_bytes(b"OTHER").unwrap_or_default());

static ANY: LazyLock<Method> = LazyLock::new(|| Method::from_bytes(b"*").unwrap_or_default());

// === impl Paths ===

impl Paths {
    pub(super) fn new(settings: Option<&HttpMetrics>) -> Paths {
        let mut patterns: Vec<Pattern> = settings
            .iter()
            .flat_map(|settings| &settings.path_matching)
            .map(|text| Pattern { text: text.clone(), segments: segments(text) })
            .collect();
        patterns.sort_by(|one, other| one.segments.cmp(&other.segments));
        Paths {
            increased: settings.and_then(|settings| settings.increased_cardinality).unwrap_or(true),
            exclude_verbs: settings.and_then(|settings| settings.exclude_verbs).unwrap_or(false),
            patterns,
        }
    }

    /// Whether metrics have a label for the path.
    pub(super) fn by_path(&self) -> bool {
        self.increased || !self.patterns.is_empty()
    }

    /// The label for a path.
    pub(super) fn label<'a>(&'a self, path: &'a str) -> Cow<'a, str> {
        if let Some(pattern) = self.patterns.iter().find(|pattern| pattern.matches(path)) {
            return Cow::Borrowed(&pattern.text);
        }
        if self.increased { without_names(path) } else { Cow::Borrowed("") }
    }

    /// The label for a method; [`Paths::any_method`] where methods are not told apart.
    pub(super) fn method(&self, method: &Method) -> Method {
        if self.exclude_verbs { Paths::any_method() } else { known_method(method) }
    }

    pub(super) fn any_method() -> Method {
        ANY.clone()
    }
}

/// The method, or one for all that HTTP does not define: callers can make up any.
pub(crate) fn known_method(method: &Method) -> Method {
    match method.as_str() {
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH" => {
            method.clone()
        }
        _ => OTHER.clone(),
    }
}

/// Takes keys, names of secrets and ids of actors out of a path: they are as many as there are data.
fn without_names(path: &str) -> Cow<'_, str> {
    let segments: Vec<&str> = path.trim_start_matches('/').splitn(6, '/').collect();
    match segments.as_slice() {
        ["actors", kind, _, rest @ ..] => {
            let mut label = format!("actors/{kind}/{{id}}");
            for segment in rest {
                label.push('/');
                label.push_str(segment);
            }
            Cow::Owned(label)
        }
        [version, "actors", kind, _, what, ..] => {
            Cow::Owned(format!("/{version}/actors/{kind}/{{id}}/{what}"))
        }
        [_, "state" | "secrets", _, _, ..] => {
            // The first three segments.
            let skipped = path.len() - path.trim_start_matches('/').len();
            let length = segments[..3].iter().map(|segment| segment.len() + 1).sum::<usize>() - 1;
            match skipped {
                0 => Cow::Owned(format!("/{}", &path[..length])),
                skipped => Cow::Borrowed(&path[skipped - 1..skipped + length]),
            }
        }
        _ => Cow::Borrowed(path),
    }
}

fn segments(pattern: &str) -> Vec<Segment> {
    let pattern = pattern.strip_prefix('/').unwrap_or(pattern);
    let count = pattern.split('/').count();
    let segments = pattern.split('/').enumerate().filter_map(|(index, segment)| {
        let name = segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}'));
        Some(match name {
            Some("$") => return None,
            Some(name) if name.ends_with("...") => Segment::Rest,
            Some(_) => Segment::One,
            None if segment.is_empty() && index + 1 == count => Segment::Rest,
            None => Segment::Literal(segment.to_owned()),
        })
    });
    segments.collect()
}

// === impl Pattern ===

impl Pattern {
    fn matches(&self, path: &str) -> bool {
        let mut given = path.strip_prefix('/').unwrap_or(path).split('/');
        for segment in &self.segments {
            match (segment, given.next()) {
                (Segment::Rest, Some(_)) => return true,
                (Segment::Literal(literal), Some(given)) if literal == given => {}
                (Segment::One, Some(given)) if !given.is_empty() => {}
                _ => return false,
            }
        }
        given.all(str::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::Paths;
    use dhow_resources::configuration::telemetry::HttpMetrics;
    use http::Method;

    fn paths(increased: Option<bool>, patterns: &[&str]) -> Paths {
        Paths::new(Some(&HttpMetrics {
            increased_cardinality: increased,
            path_matching: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
            exclude_verbs: None,
        }))
    }

    #[test]
    fn names_are_taken_out() {
        let paths = paths(None, &[]);
        assert!(paths.by_path());
        for (path, label) in [
            ("/v1.0/state/store/key", "/v1.0/state/store"),
            ("//v1.0/state/store/key/more", "/v1.0/state/store"),
            ("v1.0/secrets/vault/name", "/v1.0/secrets/vault"),
            ("/v1.0/state/store", "/v1.0/state/store"),
            ("/v1.0/invoke/app/method/orders/7", "/v1.0/invoke/app/method/orders/7"),
            ("/v1.0/actors/Cat/7/method/x/y", "/v1.0/actors/Cat/{id}/method"),
            ("/actors/Cat/7/method/meow", "actors/Cat/{id}/method/meow"),
            ("/", "/"),
            ("", ""),
        ] {
            assert_eq!(paths.label(path), label, "{path}");
        }
    }

    #[test]
    fn patterns_match_the_most_specific_first() {
        let patterns =
            ["/orders/{id}", "/orders/{id}/items/{item}", "/orders/new", "/files/", "/", "/x/{rest...}"];
        for (increased, path, label) in [
            (false, "/orders/7", "/orders/{id}"),
            (false, "/orders/new", "/orders/new"),
            (false, "/orders/7/items/8", "/orders/{id}/items/{item}"),
            (false, "/files/a/b", "/files/"),
            (false, "/x/1/2", "/x/{rest...}"),
            (false, "/orders/7/other", "/"),
            (true, "/nowhere", "/"),
        ] {
            assert_eq!(paths(Some(increased), &patterns).label(path), label, "{path}");
        }
        assert_eq!(paths(Some(false), &["/a"]).label("/b"), "");
        assert_eq!(paths(Some(true), &["/a"]).label("/b"), "/b");
        assert!(!paths(Some(false), &[]).by_path());
    }

    #[test]
    fn methods_can_be_left_out() {
        let settings = HttpMetrics { exclude_verbs: Some(true), ..HttpMetrics::default() };
        assert_eq!(Paths::new(Some(&settings)).method(&Method::GET), Paths::any_method());
        assert_eq!(Paths::new(None).method(&Method::GET), Method::GET);
    }
}
