//! Tokens into a tree, by precedence.

use super::Language;
use super::lexer::Token;
use serde_json::Value;

/// Deepest nesting.
const MAX_DEPTH: usize = 64;

/// A part of an expression.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Literal(Value),
    Variable(String),
    /// The element that a predicate is asked about.
    Element,
    /// Which one it is, from 0.
    Index,
    /// What `reduce` has so far.
    Accumulator,
    /// `.name` or `[index]`; `lenient` as `?.` is.
    Member {
        of: Box<Node>,
        index: Box<Node>,
        lenient: bool,
    },
    Slice {
        of: Box<Node>,
        from: Option<Box<Node>>,
        to: Option<Box<Node>>,
    },
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Not(Box<Node>),
    Negative(Box<Node>),
    Binary {
        sign: &'static str,
        left: Box<Node>,
        right: Box<Node>,
    },
    Choice {
        condition: Box<Node>,
        yes: Box<Node>,
        no: Box<Node>,
    },
    Call {
        name: String,
        arguments: Vec<Node>,
    },
    Let {
        name: String,
        value: Box<Node>,
        body: Box<Node>,
    },
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    language: Language,
    depth: usize,
}

pub(super) fn parse(tokens: Vec<Token>, language: Language) -> Result<Node, String> {
    let mut parser = Parser { tokens: tokens.into_iter().peekable(), language, depth: 0 };
    let node = parser.expression()?;
    match parser.tokens.next() {
        None => Ok(node),
        Some(token) => Err(format!("{} stands behind the end of the expression", shown(&token))),
    }
}

/// Binary operators: how they are written, what they are, how strongly they bind, and whether from the right.
fn binary(token: &Token, language: Language) -> Option<(&'static str, u8, bool)> {
    Some(match token {
        Token::Sign("|") if language == Language::Expr => ("|", 1, false),
        Token::Sign("||") => ("or", 2, false),
        Token::Sign("&&") => ("and", 3, false),
        Token::Sign("==") => ("==", 4, false),
        Token::Sign("!=") => ("!=", 4, false),
        Token::Sign("<") => ("<", 4, false),
        Token::Sign(">") => (">", 4, false),
        Token::Sign("<=") => ("<=", 4, false),
        Token::Sign(">=") => (">=", 4, false),
        Token::Sign("=~") if language == Language::When => ("matches", 4, false),
        Token::Sign("!~") if language == Language::When => ("not matches", 4, false),
        Token::Word(word) => match (word.as_str(), language) {
            ("in", _) => ("in", 4, false),
            ("or", Language::Expr) => ("or", 2, false),
            ("and", Language::Expr) => ("and", 3, false),
            ("not", Language::Expr) => ("not", 4, false),
            ("matches", Language::Expr) => ("matches", 4, false),
            ("contains", Language::Expr) => ("contains", 4, false),
            ("startsWith", Language::Expr) => ("startsWith", 4, false),
            ("endsWith", Language::Expr) => ("endsWith", 4, false),
            _ => return None,
        },
        Token::Sign("..") if language == Language::Expr => ("..", 5, false),
        Token::Sign("+") => ("+", 6, false),
        Token::Sign("-") => ("-", 6, false),
        Token::Sign("*") => ("*", 7, false),
        Token::Sign("/") => ("/", 7, false),
        Token::Sign("%") => ("%", 7, false),
        Token::Sign("**" | "^") => ("**", 9, true),
        Token::Sign("??") => ("??", 10, false),
        _ => return None,
    })
}

/// Above multiplication, below powers: `-2 ** 2` is -4.
const UNARY: u8 = 8;

// === impl Parser ===

impl Parser {
    fn expression(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("the expression is nested deeper than {MAX_DEPTH} levels"));
        }
        let node = self.choice();
        self.depth -= 1;
        node
    }

    fn choice(&mut self) -> Result<Node, String> {
        if self.language == Language::Expr && self.tokens.peek() == Some(&Token::Word("let".to_owned())) {
            self.tokens.next();
            let Some(Token::Word(name)) = self.tokens.next() else {
                return Err("expected a name behind `let`".to_owned());
            };
            self.expect("=")?;
            let value = Box::new(self.expression()?);
            self.expect(";")?;
            return Ok(Node::Let { name, value, body: Box::new(self.expression()?) });
        }
        let condition = self.operators(0)?;
        if !self.eat("?") {
            return Ok(condition);
        }
        let yes = Box::new(self.expression()?);
        self.expect(":")?;
        Ok(Node::Choice { condition: Box::new(condition), yes, no: Box::new(self.expression()?) })
    }

    fn operators(&mut self, weakest: u8) -> Result<Node, String> {
        let mut left = self.unary()?;
        while let Some((mut sign, strength, from_right)) =
            self.tokens.peek().and_then(|token| binary(token, self.language))
        {
            if strength < weakest {
                break;
            }
            self.tokens.next();
            if sign == "not" {
                sign = match self.tokens.next() {
                    Some(Token::Word(word)) if word == "in" => "not in",
                    Some(Token::Word(word)) if word == "matches" => "not matches",
                    Some(Token::Word(word)) if word == "contains" => "not contains",
                    _ => return Err("expected `in`, `matches` or `contains` behind `not`".to_owned()),
                };
            }
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(format!("the expression is nested deeper than {MAX_DEPTH} levels"));
            }
            let right = self.operators(if from_right { strength } else { strength + 1 })?;
            self.depth -= 1;
            left = if sign == "|" {
                piped(left, right)?
            } else {
                Node::Binary { sign, left: Box::new(left), right: Box::new(right) }
            };
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Node, String> {
        let sign = match self.tokens.peek() {
            Some(Token::Sign(sign @ ("!" | "-" | "+"))) => *sign,
            Some(Token::Word(word)) if word == "not" && self.language == Language::Expr => "!",
            _ => return self.postfix(),
        };
        self.tokens.next();
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("the expression is nested deeper than {MAX_DEPTH} levels"));
        }
        let node = Box::new(self.operators(UNARY)?);
        self.depth -= 1;
        Ok(match sign {
            "!" => Node::Not(node),
            "-" => Node::Negative(node),
            _ => *node,
        })
    }

    fn postfix(&mut self) -> Result<Node, String> {
        let mut node = self.primary()?;
        let mut length = 0;
        loop {
            length += 1;
            if length > MAX_DEPTH {
                return Err(format!("more than {MAX_DEPTH} fields stand behind each other"));
            }
            if self.eat("[") {
                node = self.index(node)?;
                continue;
            }
            let lenient = match self.tokens.peek() {
                Some(Token::Sign(".")) => false,
                Some(Token::Sign("?.")) => true,
                _ => return Ok(node),
            };
            self.tokens.next();
            if lenient && self.eat("[") {
                let index = Box::new(self.expression()?);
                self.expect("]")?;
                node = Node::Member { of: Box::new(node), index, lenient };
                continue;
            }
            let name = match self.tokens.next() {
                Some(Token::Word(name)) => name,
                // `list.0`
                Some(Token::Integer(index)) => index.to_string(),
                _ => return Err("expected a name behind the dot".to_owned()),
            };
            if self.eat("(") {
                let Node::Variable(room) = &node else {
                    return Err(format!("{name}() is no function of a value"));
                };
                node = Node::Call { name: format!("{room}.{name}"), arguments: self.list(")")? };
                continue;
            }
            let index = Box::new(Node::Literal(Value::String(name)));
            node = Node::Member { of: Box::new(node), index, lenient };
        }
    }

    fn index(&mut self, of: Node) -> Result<Node, String> {
        let of = Box::new(of);
        let from = if self.eat(":") {
            None
        } else {
            let from = Box::new(self.expression()?);
            if self.eat("]") {
                return Ok(Node::Member { of, index: from, lenient: false });
            }
            self.expect(":")?;
            Some(from)
        };
        let to =
            if self.eat("]") { return Ok(Node::Slice { of, from, to: None }) } else { self.expression()? };
        self.expect("]")?;
        Ok(Node::Slice { of, from, to: Some(Box::new(to)) })
    }

    fn primary(&mut self) -> Result<Node, String> {
        let token = self.tokens.next().ok_or("the expression ends where a value should be")?;
        Ok(match token {
            Token::Integer(number) => Node::Literal(number.into()),
            Token::Float(number) => Node::Literal(number.into()),
            Token::Text(text) => Node::Literal(text.into()),
            Token::Word(word) => return self.word(word),
            Token::Sign("(") => {
                let node = self.expression()?;
                // govaluate's lists are in round brackets.
                if self.language == Language::When && self.eat(",") {
                    let mut nodes = vec![node];
                    nodes.extend(self.list(")")?);
                    return Ok(Node::List(nodes));
                }
                self.expect(")")?;
                node
            }
            Token::Sign("[") if self.language == Language::Expr => Node::List(self.list("]")?),
            Token::Sign("{") if self.language == Language::Expr => self.map()?,
            Token::Sign("#") => match self.tokens.peek() {
                Some(Token::Word(word)) if word == "acc" => self.skip_to(Node::Accumulator),
                Some(Token::Word(word)) if word == "index" => self.skip_to(Node::Index),
                _ => Node::Element,
            },
            Token::Sign(".") if self.language == Language::Expr => match self.tokens.next() {
                Some(Token::Word(name)) => Node::Member {
                    of: Box::new(Node::Element),
                    index: Box::new(Node::Literal(name.into())),
                    lenient: false,
                },
                _ => return Err("expected a name behind the dot".to_owned()),
            },
            token => return Err(format!("{} stands where a value should be", shown(&token))),
        })
    }

    fn word(&mut self, word: String) -> Result<Node, String> {
        Ok(match word.as_str() {
            "true" => Node::Literal(true.into()),
            "false" => Node::Literal(false.into()),
            "nil" | "null" if self.language == Language::Expr => Node::Literal(Value::Null),
            _ if self.language == Language::When => Node::Literal(word.into()),
            _ if self.eat("(") => Node::Call { name: word, arguments: self.list(")")? },
            _ => Node::Variable(word),
        })
    }

    /// Values with commas between, to the closing bracket.
    fn list(&mut self, end: &'static str) -> Result<Vec<Node>, String> {
        let mut nodes = Vec::new();
        while !self.eat(end) {
            // A predicate may stand in braces of its own: `filter(list, {# > 1})`.
            nodes.push(self.argument()?);
            if !self.eat(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(nodes)
    }

    fn argument(&mut self) -> Result<Node, String> {
        let is_brace = self.language == Language::Expr && self.tokens.peek() == Some(&Token::Sign("{"));
        if !is_brace {
            return self.expression();
        }
        let before = self.tokens.clone();
        if let Ok(map) = self.expression() {
            return Ok(map);
        }
        self.tokens = before;
        self.expect("{")?;
        let node = self.expression()?;
        self.expect("}")?;
        Ok(node)
    }

    fn map(&mut self) -> Result<Node, String> {
        let mut entries = Vec::new();
        while !self.eat("}") {
            let key = match self.tokens.next() {
                Some(Token::Word(name) | Token::Text(name)) => Node::Literal(name.into()),
                Some(Token::Integer(number)) => Node::Literal(number.to_string().into()),
                Some(Token::Sign("(")) => {
                    let key = self.expression()?;
                    self.expect(")")?;
                    key
                }
                _ => return Err("expected a key in the braces".to_owned()),
            };
            self.expect(":")?;
            entries.push((key, self.expression()?));
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Node::Map(entries))
    }

    fn skip_to(&mut self, node: Node) -> Node {
        self.tokens.next();
        node
    }

    fn eat(&mut self, sign: &str) -> bool {
        let is_there = matches!(self.tokens.peek(), Some(Token::Sign(found)) if *found == sign);
        if is_there {
            self.tokens.next();
        }
        is_there
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        if self.eat(sign) {
            return Ok(());
        }
        Err(match self.tokens.peek() {
            Some(token) => format!("expected {sign:?}, found {}", shown(token)),
            None => format!("expected {sign:?} at the end"),
        })
    }
}

/// `value | f(x)` is `f(value, x)`.
fn piped(value: Node, call: Node) -> Result<Node, String> {
    let Node::Call { name, mut arguments } = call else {
        return Err("expected a function behind `|`".to_owned());
    };
    arguments.insert(0, value);
    Ok(Node::Call { name, arguments })
}

fn shown(token: &Token) -> String {
    match token {
        Token::Integer(number) => number.to_string(),
        Token::Float(number) => number.to_string(),
        Token::Text(text) => dhow_resources::error::quote(text),
        Token::Word(word) => format!("{word:?}"),
        Token::Sign(sign) => format!("{sign:?}"),
    }
}

// === impl Node ===

impl Node {
    /// The dotted paths of variables in it.
    pub(super) fn collect_variables(&self, found: &mut Vec<String>) {
        if let Some(path) = self.path() {
            found.push(path);
            return;
        }
        let Node::Let { name, value, body } = self else {
            return self.children().into_iter().for_each(|node| node.collect_variables(found));
        };
        value.collect_variables(found);
        let mut inner = Vec::new();
        body.collect_variables(&mut inner);
        let own = format!("{name}.");
        found.extend(inner.into_iter().filter(|path| path != name && !path.starts_with(&own)));
    }

    /// The names of the functions that it calls.
    pub(super) fn collect_calls<'a>(&'a self, found: &mut Vec<&'a str>) {
        if let Node::Call { name, .. } = self {
            found.push(name);
        }
        self.children().into_iter().for_each(|node| node.collect_calls(found));
    }

    fn children(&self) -> Vec<&Node> {
        match self {
            Node::Literal(_) | Node::Variable(_) | Node::Element | Node::Index | Node::Accumulator => {
                Vec::new()
            }
            Node::Member { of, index, .. } => vec![of, index],
            Node::Slice { of, from, to } => {
                std::iter::once(of).chain(from).chain(to).map(AsRef::as_ref).collect()
            }
            Node::List(nodes) | Node::Call { arguments: nodes, .. } => nodes.iter().collect(),
            Node::Map(entries) => entries.iter().flat_map(|(key, value)| [key, value]).collect(),
            Node::Not(node) | Node::Negative(node) => vec![node],
            Node::Binary { left, right, .. } => vec![left, right],
            Node::Choice { condition, yes, no } => vec![condition, yes, no],
            Node::Let { value, body, .. } => vec![value, body],
        }
    }

    fn path(&self) -> Option<String> {
        match self {
            Node::Variable(name) => Some(name.clone()),
            Node::Member { of, index, lenient: false } => match index.as_ref() {
                Node::Literal(Value::String(name)) => Some(format!("{}.{name}", of.path()?)),
                _ => None,
            },
            _ => None,
        }
    }
}
