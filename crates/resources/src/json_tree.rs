//! JSON into the tree (RFC 8259), bounded.

use crate::error::{ResourceError, quote};
use crate::tree::{Entry, Findings, MAX_DEPTH, MAX_NODES, Node, Position, Value};
use std::collections::HashSet;
use std::iter::Peekable;
use std::path::Path;
use std::str::Chars;

/// Reads a file of one value. After the first mistake the rest cannot be trusted, so there is one error.
pub(crate) fn parse(text: &str, file: &Path) -> Result<Node, ResourceError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { rest: text.chars().peekable(), at: Position { line: 1, column: 1 }, nodes: 0 };
    let whole = reader.value(0).and_then(|node| {
        reader.blank();
        match reader.rest.peek() {
            None => Ok(node),
            Some(_) => Err(reader.unexpected("the end of the file")),
        }
    });
    whole.map_err(|Failed { at, message }| {
        let mut findings = Findings::new(file);
        findings.add(at, "", message, "");
        let error = findings.into_vec().pop();
        error.unwrap_or_else(|| ResourceError::whole_file(file, "is not JSON", ""))
    })
}

/// A value as JSON.
pub(crate) fn write(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Integer(text) | Value::Float(text) => text.clone(),
        Value::Text(text) | Value::Date(text) => quoted(text),
        Value::List(nodes) => format!("[{}]", nodes.iter().map(write).collect::<Vec<_>>().join(",")),
        Value::Map(entries) => {
            let fields = entries.iter().map(|entry| format!("{}:{}", quoted(&entry.key), write(&entry.node)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

struct Failed {
    at: Position,
    message: String,
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    at: Position,
    nodes: usize,
}

// === impl Reader ===

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Node, Failed> {
        self.blank();
        let at = self.at;
        if depth > MAX_DEPTH {
            return Err(Failed { at, message: format!("values are nested deeper than {MAX_DEPTH} levels") });
        }
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Failed { at, message: format!("the file has more than {MAX_NODES} values") });
        }
        let value = match self.rest.peek() {
            Some('{') => self.map(depth)?,
            Some('[') => self.list(depth)?,
            Some('"') => Value::Text(self.text()?),
            Some('-' | '0'..='9') => self.number()?,
            Some(c) if c.is_ascii_alphabetic() => self.word()?,
            _ => return Err(self.unexpected("a value")),
        };
        Ok(Node { at, value })
    }

    fn map(&mut self, depth: usize) -> Result<Value, Failed> {
        let mut entries = Vec::new();
        let mut known = HashSet::new();
        self.next();
        if self.skip('}') {
            return Ok(Value::Map(entries));
        }
        loop {
            self.blank();
            let at = self.at;
            if self.rest.peek() != Some(&'"') {
                return Err(self.unexpected("a field's name in quotes"));
            }
            let key = self.text()?;
            if !known.insert(key.clone()) {
                return Err(Failed { at, message: format!("the field {} is given twice", quote(&key)) });
            }
            if !self.skip(':') {
                return Err(self.unexpected("a colon"));
            }
            let node = self.value(depth + 1)?;
            entries.push(Entry { key, at, node });
            if !self.skip(',') {
                break;
            }
        }
        if self.skip('}') { Ok(Value::Map(entries)) } else { Err(self.unexpected("a comma or `}`")) }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Failed> {
        let mut nodes = Vec::new();
        self.next();
        if self.skip(']') {
            return Ok(Value::List(nodes));
        }
        loop {
            nodes.push(self.value(depth + 1)?);
            if !self.skip(',') {
                break;
            }
        }
        if self.skip(']') { Ok(Value::List(nodes)) } else { Err(self.unexpected("a comma or `]`")) }
    }

    fn text(&mut self) -> Result<String, Failed> {
        let begin = self.at;
        self.next();
        let mut text = String::new();
        loop {
            let at = self.at;
            match self.next() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escaped(at)?),
                Some(c) if c >= ' ' => text.push(c),
                _ => return Err(Failed { at: begin, message: "the text has no end in its line".to_owned() }),
            }
        }
    }

    fn escaped(&mut self, at: Position) -> Result<char, Failed> {
        let bad = || Failed { at, message: "is no escape of JSON".to_owned() };
        Ok(match self.next().ok_or_else(bad)? {
            c @ ('"' | '\\' | '/') => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.unit().ok_or_else(bad)?;
                // Beyond the first 65,536 characters there are pairs.
                let second = match first {
                    0xD800..0xDC00 if self.next() == Some('\\') && self.next() == Some('u') => self.unit(),
                    _ => None,
                };
                let mut units = char::decode_utf16([Some(first), second].into_iter().flatten());
                match (units.next(), units.next()) {
                    (Some(Ok(c)), None) => c,
                    _ => return Err(bad()),
                }
            }
            _ => return Err(bad()),
        })
    }

    fn unit(&mut self) -> Option<u16> {
        let mut unit = 0;
        for _ in 0..4 {
            unit = unit << 4 | self.next()?.to_digit(16)? as u16;
        }
        Some(unit)
    }

    fn number(&mut self) -> Result<Value, Failed> {
        let at = self.at;
        let mut text = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || "+-.".contains(*c)) {
            self.at.column += 1;
            text.push(c);
        }
        if !is_number(&text) {
            return Err(Failed { at, message: format!("{} is no number", quote(&text)) });
        }
        let is_integer = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        Ok(if is_integer { Value::Integer(text) } else { Value::Float(text) })
    }

    fn word(&mut self) -> Result<Value, Failed> {
        let at = self.at;
        let mut word = String::new();
        while let Some(c) = self.rest.next_if(char::is_ascii_alphanumeric) {
            self.at.column += 1;
            word.push(c);
        }
        match word.as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            "null" => Ok(Value::Null),
            word => {
                Err(Failed { at, message: format!("{} is no value; texts stand in quotes", quote(word)) })
            }
        }
    }

    fn blank(&mut self) {
        while matches!(self.rest.peek(), Some(' ' | '\t' | '\r' | '\n')) {
            self.next();
        }
    }

    /// Takes this character, if it comes next.
    fn skip(&mut self, wanted: char) -> bool {
        self.blank();
        let is_next = self.rest.peek() == Some(&wanted);
        if is_next {
            self.next();
        }
        is_next
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        match next {
            '\n' => self.at = Position { line: self.at.line + 1, column: 1 },
            _ => self.at.column += 1,
        }
        Some(next)
    }

    fn unexpected(&mut self, expected: &str) -> Failed {
        let found = match self.rest.peek() {
            Some(c) => quote(&c.to_string()),
            None => "the end of the file".to_owned(),
        };
        Failed { at: self.at, message: format!("expected {expected}, found {found}") }
    }
}

/// RFC 8259 section 6.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values in a line, each with where it stands.
    fn shown(node: &Node) -> String {
        let Position { line, column } = node.at;
        let value = match &node.value {
            Value::Map(entries) => {
                let entries = entries.iter().map(|entry| format!("{}={}", entry.key, shown(&entry.node)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(" "))
            }
            Value::List(nodes) => format!("[{}]", nodes.iter().map(shown).collect::<Vec<_>>().join(" ")),
            _ => format!("{}:{:?}", node.kind(), node.scalar().unwrap()),
        };
        format!("{line}:{column} {value}")
    }

    #[test]
    fn values_know_where_they_stand() {
        let cases = [
            (" {}", "1:2 {}"),
            (
                "[1, -2.5e+3,\n\ttrue, null]",
                r#"1:1 [1:2 an integer:"1" 1:5 a decimal number:"-2.5e+3" 2:2 a boolean:"true" 2:8 nothing:""]"#,
            ),
            ("{\"a\": {\"é\":\r\n \"x\"}}", r#"1:1 {a=1:7 {é=2:2 a string:"x"}}"#),
            (r#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00""#, "1:1 a string:\"\\\"\\\\/\\u{8}\\u{c}\\n\\r\\té😀\""),
            ("\u{feff}0", r#"1:1 an integer:"0""#),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(&parse(text, Path::new("f")).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let text = r#"{"a":[1,-2.50,true,null],"\"\\":"\u0009é"}"#;
        assert_eq!(write(&parse(text, Path::new("f")).unwrap()), text);
    }

    #[test]
    fn mistakes_are_found_where_they_are() {
        let deep = "[".repeat(MAX_DEPTH + 2);
        let cases = [
            ("", "f:1:1: expected a value, found the end of the file"),
            ("{\n  \"a\" 1}", "f:2:7: expected a colon, found `1`"),
            ("{\"a\": 1,}", "f:1:9: expected a field's name in quotes, found `}`"),
            ("{\"a\": 1 \"b\"", "f:1:9: expected a comma or `}`"),
            ("[1 2]", "f:1:4: expected a comma or `]`"),
            ("{\"a\": 1, \"a\": 2}", "f:1:10: the field `a` is given twice"),
            ("[yes]", "f:1:2: `yes` is no value"),
            ("// no", "f:1:1: expected a value, found `/`"),
            ("01", "f:1:1: `01` is no number"),
            ("[1.]", "f:1:2: `1.` is no number"),
            ("-", "f:1:1: `-` is no number"),
            ("\"a\nb\"", "f:1:1: the text has no end in its line"),
            (r#"["\x"]"#, "f:1:3: is no escape"),
            (r#""\ud83d""#, "f:1:2: is no escape"),
            (r#""\ud83d\u0041""#, "f:1:2: is no escape"),
            ("1 2", "f:1:3: expected the end of the file"),
            (&deep, "f:1:66: values are nested deeper"),
        ];
        for (text, expected) in cases {
            let error = parse(text, Path::new("f")).err().unwrap().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
