//! Queries over state: Dapr's query language (`v1.0-alpha1`), parsed once.
//!
//! Source: Dapr documentation, "How-To: Query state".

use bytes::Bytes;
use serde_json::{Map, Value};

/// Deepest nesting of `AND` and `OR`.
const MAX_DEPTH: usize = 32;

/// Most results of one page.
pub const MAX_LIMIT: usize = 10_000;

/// A query over JSON values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// Which values; none: all.
    pub filter: Option<Filter>,
    /// In which order.
    pub sort: Vec<Sort>,
    /// How many at once; none: the store's choice.
    pub limit: Option<usize>,
    /// Where the last page ended.
    pub token: Option<String>,
}

/// A condition on a value. Fields are paths such as `person.org`.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// The field compares so with the value.
    Compare(Comparison, String, Value),
    /// The field is one of the values.
    In(String, Vec<Value>),
    /// All conditions hold.
    And(Vec<Filter>),
    /// One of the conditions holds.
    Or(Vec<Filter>),
}

/// How a field compares with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `EQ`
    Equal,
    /// `NEQ`
    NotEqual,
    /// `GT`
    Greater,
    /// `GTE`
    GreaterOrEqual,
    /// `LT`
    Less,
    /// `LTE`
    LessOrEqual,
}

/// One criterion of the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sort {
    /// The field.
    pub key: String,
    /// `DESC`.
    pub descending: bool,
}

/// What a query found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryPage {
    /// Keys and values, in the query's order.
    pub results: Vec<Found>,
    /// Give this to get the next page; empty after the last one.
    pub token: String,
}

/// One value that a query found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Key, prefix included.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// Its etag.
    pub etag: String,
}

impl Query {
    /// Reads a query; the error says what is wrong with it.
    pub fn parse(json: &[u8]) -> Result<Query, String> {
        let query: Map<String, Value> = serde_json::from_slice(json)
            .map_err(|error| format!("the query is not a JSON object: {error}"))?;
        let filter = match query.get("filter") {
            None | Some(Value::Null) => None,
            Some(Value::Object(filter)) if filter.is_empty() => None,
            Some(filter) => Some(parse_filter(filter, 0)?),
        };
        let sort = match query.get("sort") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(sort)) => sort.iter().map(parse_sort).collect::<Result<_, _>>()?,
            Some(_) => return Err("sort must be a list of {key, order}".to_owned()),
        };
        let page = query.get("page").and_then(Value::as_object);
        let limit = match page.and_then(|page| page.get("limit")) {
            None | Some(Value::Null) => None,
            Some(limit) => match limit.as_u64().and_then(|limit| usize::try_from(limit).ok()) {
                Some(0) => None,
                Some(limit) if limit <= MAX_LIMIT => Some(limit),
                _ => return Err(format!("page.limit must be a whole number up to {MAX_LIMIT}")),
            },
        };
        let token = match page.and_then(|page| page.get("token")) {
            None | Some(Value::Null) => None,
            Some(Value::String(token)) => Some(token.clone()).filter(|token| !token.is_empty()),
            Some(_) => return Err("page.token must be a string".to_owned()),
        };
        Ok(Query { filter, sort, limit, token })
    }
}

fn parse_filter(filter: &Value, depth: usize) -> Result<Filter, String> {
    let one = filter.as_object().filter(|filter| filter.len() == 1).and_then(|filter| filter.iter().next());
    let Some((operator, operand)) = one else {
        return Err("a filter must be an object with one operator".to_owned());
    };
    if depth >= MAX_DEPTH {
        return Err(format!("filters may be nested {MAX_DEPTH} deep"));
    }
    let comparison = match operator.as_str() {
        "EQ" => Comparison::Equal,
        "NEQ" => Comparison::NotEqual,
        "GT" => Comparison::Greater,
        "GTE" => Comparison::GreaterOrEqual,
        "LT" => Comparison::Less,
        "LTE" => Comparison::LessOrEqual,
        "IN" => {
            let (field, values) = field(operator, operand)?;
            let Value::Array(values) = values else { return Err(format!("IN {field}: expected a list")) };
            return Ok(Filter::In(field, values.clone()));
        }
        "AND" | "OR" => {
            let Some(parts) = operand.as_array().filter(|parts| parts.len() >= 2) else {
                return Err(format!("{operator}: expected a list of at least two filters"));
            };
            let parts = parts.iter().map(|part| parse_filter(part, depth + 1)).collect::<Result<_, _>>()?;
            return Ok(if operator == "AND" { Filter::And(parts) } else { Filter::Or(parts) });
        }
        other => {
            return Err(format!("unknown operator {other:?}; known: EQ, NEQ, GT, GTE, LT, LTE, IN, AND, OR"));
        }
    };
    let (field, value) = field(operator, operand)?;
    Ok(Filter::Compare(comparison, field, value.clone()))
}

fn field<'a>(operator: &str, operand: &'a Value) -> Result<(String, &'a Value), String> {
    let one = operand.as_object().filter(|one| one.len() == 1).and_then(|one| one.iter().next());
    match one {
        Some((field, value)) if !field.is_empty() => Ok((field.clone(), value)),
        _ => Err(format!("{operator}: expected an object with one field")),
    }
}

fn parse_sort(sort: &Value) -> Result<Sort, String> {
    let key = sort.get("key").and_then(Value::as_str).filter(|key| !key.is_empty());
    let Some(key) = key else { return Err("sort: each entry needs a key".to_owned()) };
    let descending = match sort.get("order").and_then(Value::as_str).unwrap_or("ASC") {
        "" | "ASC" => false,
        "DESC" => true,
        other => return Err(format!("sort: order must be ASC or DESC; found {other:?}")),
    };
    Ok(Sort { key: key.to_owned(), descending })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn queries_are_read() {
        let text = json!({
            "filter": {"OR": [
                {"EQ": {"person.org": "Dev Ops"}},
                {"AND": [{"GTE": {"age": 3}}, {"IN": {"state": ["CA", "WA"]}}]}
            ]},
            "sort": [{"key": "state", "order": "DESC"}, {"key": "person.id"}],
            "page": {"limit": 3, "token": "6"}
        });
        let found = Query::parse(text.to_string().as_bytes()).unwrap();
        let compare = |comparison, field: &str, value| Filter::Compare(comparison, field.to_owned(), value);
        let filter = Filter::Or(vec![
            compare(Comparison::Equal, "person.org", json!("Dev Ops")),
            Filter::And(vec![
                compare(Comparison::GreaterOrEqual, "age", json!(3)),
                Filter::In("state".to_owned(), vec![json!("CA"), json!("WA")]),
            ]),
        ]);
        assert_eq!(found.filter, Some(filter));
        let sort = |key: &str, descending| Sort { key: key.to_owned(), descending };
        assert_eq!(found.sort, [sort("state", true), sort("person.id", false)]);
        assert_eq!((found.limit, found.token.as_deref()), (Some(3), Some("6")));
        assert_eq!(Query::parse(b"{}"), Ok(Query::default()));
        assert_eq!(Query::parse(br#"{"filter":{}}"#), Ok(Query::default()));
    }

    #[test]
    fn wrong_queries_say_why() {
        let mut deep = json!({"EQ": {"a": 1}});
        for _ in 0..40 {
            deep = json!({"AND": [deep, {"EQ": {"a": 1}}]});
        }
        for (query, reason) in [
            (json!([]), "not a JSON object"),
            (json!({"filter": {"XX": {"a": 1}}}), "unknown operator"),
            (json!({"filter": {"EQ": {"a": 1, "b": 2}}}), "one field"),
            (json!({"filter": {"EQ": {"a": 1}, "NEQ": {"a": 1}}}), "one operator"),
            (json!({"filter": {"IN": {"a": 1}}}), "expected a list"),
            (json!({"filter": {"AND": [{"EQ": {"a": 1}}]}}), "at least two"),
            (json!({"filter": deep}), "nested"),
            (json!({"sort": [{"order": "ASC"}]}), "needs a key"),
            (json!({"sort": [{"key": "a", "order": "UP"}]}), "ASC or DESC"),
            (json!({"page": {"limit": -1}}), "page.limit"),
            (json!({"page": {"token": 1}}), "page.token"),
        ] {
            let error = Query::parse(query.to_string().as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{query}: {error}");
        }
    }
}
