//! How Dapr splits and unescapes paths: double slashes are one, a trailing slash is none, and a segment is
//! unescaped after the split, so that `%2F` stays inside it.

use dhow_blocks::events::Metadata;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// The parts of a path.
pub fn segments(path: &str) -> Vec<Cow<'_, str>> {
    path.split('/').filter(|part| !part.is_empty()).map(unescape).collect()
}

/// `%41` becomes `A`; what is not valid stays as it is.
pub fn decode(text: &str) -> String {
    unescape(text).into_owned()
}

/// Parameters behind the question mark, in order.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c=d`, with `+` for a space.
    pub fn parse(query: Option<&str>) -> Query {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let decoded = |text: &str| decode(&text.replace('+', " "));
        Query(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decoded(name), decoded(value))
                })
                .collect(),
        )
    }

    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// All values of that name, in order.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(found, _)| found == name).map(|(_, value)| value.clone()).collect()
    }

    /// Request metadata as a map; of a name that is there twice the last value counts.
    pub fn metadata_map(&self) -> Metadata {
        self.metadata().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Request metadata: parameters whose names begin with `metadata.`, without that.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, value)| Some((name.strip_prefix("metadata.")?, value.as_str())))
    }
}

/// As it came, if it would be no text.
fn unescape(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8().unwrap_or(Cow::Borrowed(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_as_dapr_does() {
        let cases: [(&str, &[&str]); 6] = [
            ("/v1.0/state/s/k", &["v1.0", "state", "s", "k"]),
            ("//v1.0//state/s/", &["v1.0", "state", "s"]),
            ("/a%2Fb/%C3%A9", &["a/b", "é"]),
            ("/100%/%zz/%4", &["100%", "%zz", "%4"]),
            ("/%ff", &["%ff"]),
            ("/", &[]),
        ];
        for (path, expected) in cases {
            assert_eq!(segments(path), expected, "{path}");
        }
        let query = Query::parse(Some("metadata.ttlInSeconds=3&x=a+b%26&flag"));
        assert_eq!(query.metadata().collect::<Vec<_>>(), [("ttlInSeconds", "3")]);
        assert_eq!((query.get("x"), query.get("flag"), query.get("y")), (Some("a b&"), Some(""), None));
    }
}
