//! Dapr's query language as SQL over `jsonb`.
//!
//! Fields and values are parameters, never part of the statement. Where Dapr compares texts, values are
//! compared here by their type: numbers as numbers. Because a Dapr user's queries may rely on it, a text and
//! another plain value that reads the same are equal, too.

use super::error::Error;
use super::table;
use crate::state::after_prefix;
use dhow_blocks::state::{Comparison, Filter, Found, Item, MAX_LIMIT, Query, QueryPage, Sort, StateError};
use serde_json::Value;
use std::fmt::Write;
use tokio_postgres::types::{ToSql, Type};

/// Conditions and criteria of one query.
const MAX_PARAMS: usize = 10_000;

/// A query as a statement.
#[derive(Debug)]
pub(super) struct Search {
    sql: String,
    params: Vec<Param>,
    limit: usize,
    offset: usize,
}

#[derive(Debug, PartialEq)]
enum Param {
    Text(String),
    /// The way to a field.
    Path(Vec<String>),
}

// === impl Search ===

impl Search {
    /// `select` reads the rows that may be found.
    pub(super) fn new(select: &str, prefix: &str, query: Query) -> Result<Search, StateError> {
        let Query { filter, sort, limit, token } = query;
        let offset = match token.as_deref().map(str::parse::<u32>) {
            None => 0,
            Some(Ok(offset)) => offset as usize,
            Some(Err(_)) => {
                let reason = "page.token must be one that a query returned".to_owned();
                return Err(StateError::Failed { reason });
            }
        };
        let limit = limit.unwrap_or(MAX_LIMIT).min(MAX_LIMIT);
        let mut search = Search { sql: select.to_owned(), params: Vec::new(), limit, offset };
        let prefix = table::stored(prefix);
        let first = search.text(prefix.as_ref());
        search.add(&format!(" AND key COLLATE \"C\" >= {first}"));
        if let Some(end) = after_prefix(&prefix) {
            let end = search.text(end);
            search.add(&format!(" AND key COLLATE \"C\" < {end}"));
        }
        if let Some(filter) = &filter {
            search.add(" AND NOT isbinary AND ");
            search.filter(filter);
        }
        search.add(" ORDER BY ");
        for Sort { key, descending } in &sort {
            let field = search.field(key);
            search.add(&format!("{field} {} NULLS LAST, ", if *descending { "DESC" } else { "ASC" }));
        }
        // What is equal needs an order, too, or pages would overlap.
        search.add(&format!("key COLLATE \"C\" LIMIT {} OFFSET {offset}", limit + 1));
        if search.params.len() > MAX_PARAMS {
            let reason = format!("the query has more than {MAX_PARAMS} fields and values");
            return Err(StateError::Failed { reason });
        }
        if search.params.iter().any(Param::has_zero) {
            return Err(Error::Failed("a query's texts must not hold a zero".to_owned()).into());
        }
        Ok(search)
    }

    pub(super) fn sql(&self) -> &str {
        &self.sql
    }

    pub(super) fn params(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        let params = self.params.iter().map(|param| match param {
            Param::Text(text) => (text as &(dyn ToSql + Sync), Type::TEXT),
            Param::Path(path) => (path as &(dyn ToSql + Sync), Type::TEXT_ARRAY),
        });
        params.collect()
    }

    /// The page of these rows.
    pub(super) fn page(&self, mut found: Vec<(String, Item)>) -> QueryPage {
        let more = found.len() > self.limit;
        found.truncate(self.limit);
        let token = if more { (self.offset + self.limit).to_string() } else { String::new() };
        let results = found.into_iter().map(|(key, item)| Found { key, value: item.value, etag: item.etag });
        QueryPage { results: results.collect(), token }
    }

    fn filter(&mut self, filter: &Filter) {
        match filter {
            Filter::Compare(comparison, field, value) => self.compare(*comparison, field, value),
            Filter::In(_, values) if values.is_empty() => self.add("false"),
            Filter::In(field, values) => {
                self.join(values, " OR ", |search, value| search.equal(field, value))
            }
            Filter::And(filters) => self.join(filters, " AND ", Search::filter),
            Filter::Or(filters) => self.join(filters, " OR ", Search::filter),
        }
    }

    fn join<T>(&mut self, parts: &[T], between: &str, mut add: impl FnMut(&mut Search, &T)) {
        self.add("(");
        for (number, part) in parts.iter().enumerate() {
            if number > 0 {
                self.add(between);
            }
            add(self, part);
        }
        self.add(")");
    }

    fn compare(&mut self, comparison: Comparison, field: &str, value: &Value) {
        let operator = match comparison {
            Comparison::Equal => return self.equal(field, value),
            Comparison::NotEqual => {
                let present = self.field(field);
                self.add(&format!("({present} IS NOT NULL AND NOT "));
                self.equal(field, value);
                return self.add(")");
            }
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
        };
        let (field, value) = (self.field(field), self.text(value.to_string()));
        let same_type = format!("jsonb_typeof({field}) = jsonb_typeof({value}::jsonb)");
        self.add(&format!("({same_type} AND {field} {operator} {value}::jsonb)"));
    }

    fn equal(&mut self, field: &str, value: &Value) {
        let text = match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
            _ => None,
        };
        let path = self.push(Param::Path(path(field)));
        let value = self.text(value.to_string());
        // Coalesced, so that the opposite of what is unknown is true.
        self.add(&format!("coalesce(value #> {path} = {value}::jsonb"));
        if let Some(text) = text {
            let text = self.text(text);
            self.add(&format!(" OR value #>> {path} = {text}"));
        }
        self.add(", false)");
    }

    fn field(&mut self, field: &str) -> String {
        format!("(value #> {})", self.push(Param::Path(path(field))))
    }

    fn text(&mut self, text: impl Into<String>) -> String {
        self.push(Param::Text(text.into()))
    }

    fn push(&mut self, param: Param) -> String {
        self.params.push(param);
        format!("${}", self.params.len())
    }

    fn add(&mut self, sql: &str) {
        // Writing to a string does not fail.
        let _ = self.sql.write_str(sql);
    }
}

// === impl Param ===

impl Param {
    /// The server's texts hold no zero, and its documents none in a text.
    fn has_zero(&self) -> bool {
        let has_zero = |text: &String| text.contains('\0') || text.contains("\\u0000");
        match self {
            Param::Text(text) => has_zero(text),
            Param::Path(path) => path.iter().any(has_zero),
        }
    }
}

fn path(field: &str) -> Vec<String> {
    field.split('.').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_and_values_never_stand_in_the_statement() {
        let evil = "a'.\"b\"; DROP TABLE state; --";
        let query = json!({
            "filter": {"OR": [{"EQ": {evil: evil}}, {"NEQ": {evil: 1}}, {"GT": {evil: 2}}, {"IN": {evil: [evil, null]}}]},
            "sort": [{"key": evil, "order": "DESC"}],
            "page": {"limit": 3, "token": "6"},
        });
        let query = Query::parse(query.to_string().as_bytes()).unwrap();
        let search = Search::new("SELECT 1 WHERE true", "app||", query).unwrap();
        assert!(!search.sql.contains("DROP"), "{}", search.sql);
        assert!(search.sql.ends_with("LIMIT 4 OFFSET 6"), "{}", search.sql);
        assert_eq!(
            search.params()[..2].iter().map(|(_, of)| of.clone()).collect::<Vec<_>>(),
            [Type::TEXT; 2]
        );
    }

    #[test]
    fn impossible_queries_are_refused() {
        for query in [
            json!({"page": {"token": "-1"}}),
            json!({"page": {"token": "x"}}),
            json!({"filter": {"EQ": {"a": "\0"}}}),
            json!({"filter": {"EQ": {"a\0": 1}}}),
            json!({"filter": {"IN": {"a": vec![1; MAX_PARAMS]}}}),
        ] {
            let parsed = Query::parse(query.to_string().as_bytes()).unwrap();
            assert!(Search::new("", "", parsed).is_err(), "{query}");
        }
    }
}
