//! Parser for conditions, such as `${host.platform} == 'linux' and not ${env.TEST|false}` (AG §4.2).

use serde_json::{Map, Number, Value};

/// Maximum nesting. The parser and the evaluation are recursive.
const NESTING_MAX: usize = 50;

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// A constant.
    Constant(Value),
    /// The first of these with a value, or null.
    Variable(Vec<Operand>),
    /// `not`.
    Not(Box<Expression>),
    /// An operator between two expressions.
    Binary(Operator, Box<Expression>, Box<Expression>),
    /// A function with its arguments.
    Call(Function, Vec<Expression>),
}

/// An alternative of a variable.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// `provider.key`.
    Name(String),
    /// A constant.
    Constant(Value),
}

/// An operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `or`.
    Or,
    /// `and`.
    And,
    /// `==`.
    Equal,
    /// `!=`.
    Unequal,
    /// `<`.
    Less,
    /// `<=`.
    AtMost,
    /// `>`.
    Greater,
    /// `>=`.
    AtLeast,
    /// `+`.
    Add,
    /// `-`.
    Subtract,
    /// `*`.
    Multiply,
    /// `/`.
    Divide,
    /// `%`.
    Modulo,
}

/// A function. The names are those of the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say what the functions do")]
pub enum Function {
    Add,
    ArrayContains,
    Concat,
    Divide,
    EndsWith,
    Exists,
    HasKey,
    IndexOf,
    Length,
    Match,
    Modulo,
    Multiply,
    Number,
    StartsWith,
    String,
    StringContains,
    Subtract,
}

const FUNCTIONS: [(&str, Function); 17] = [
    ("add", Function::Add),
    ("arrayContains", Function::ArrayContains),
    ("concat", Function::Concat),
    ("divide", Function::Divide),
    ("endsWith", Function::EndsWith),
    ("exists", Function::Exists),
    ("hasKey", Function::HasKey),
    ("indexOf", Function::IndexOf),
    ("length", Function::Length),
    ("match", Function::Match),
    ("modulo", Function::Modulo),
    ("multiply", Function::Multiply),
    ("number", Function::Number),
    ("startsWith", Function::StartsWith),
    ("string", Function::String),
    ("stringContains", Function::StringContains),
    ("subtract", Function::Subtract),
];

/// Parses a condition.
pub fn parse(text: &str) -> Result<Expression, String> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, at: 0, nesting: 0 };
    let expression = parser.expression(0)?;
    // Everything must be consumed: `a == b c` is a mistake, not a condition with a comment.
    match parser.peek() {
        None => Ok(expression),
        Some(extra) => Err(format!("unexpected `{extra}` in the condition")),
    }
}

fn tokens(text: &str) -> Result<Vec<String>, String> {
    let (mut found, mut rest) = (Vec::new(), text.trim_start());
    while !rest.is_empty() {
        let length = token_length(rest)?;
        found.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    Ok(found)
}

/// Returns the length of the token at the beginning of `rest` in bytes.
fn token_length(rest: &str) -> Result<usize, String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '.');
    let first = rest.chars().next().unwrap_or_default();
    if let '\'' | '"' = first {
        // A string ends in its line. Without this, a missing quote would swallow the rest of the policy.
        let end = rest[1..].find([first, '\r', '\n']).filter(|end| rest[1 + end..].starts_with(first));
        return end.map(|end| end + 2).ok_or_else(|| "a string in the condition is not closed".into());
    }
    if ["${", "==", "!=", ">=", "<="].iter().any(|two| rest.starts_with(two)) {
        return Ok(2);
    }
    // Hyphens and slashes are part of names and numbers; on their own they are operators.
    match first {
        '>' | '<' | '+' | '*' | '%' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | ',' | ':' => Ok(1),
        c if is_word(c) => Ok(rest.find(|c| !is_word(c)).unwrap_or(rest.len())),
        c => Err(format!("unexpected character `{c}` in the condition")),
    }
}

struct Parser<'a> {
    tokens: &'a [String],
    at: usize,
    nesting: usize,
}

/// Precedence of a comparison; `not` binds more tightly.
const COMPARE: u8 = 3;

fn operator(token: &str) -> Option<(u8, Operator)> {
    Some(match token {
        "or" | "OR" => (1, Operator::Or),
        "and" | "AND" => (2, Operator::And),
        "==" => (COMPARE, Operator::Equal),
        "!=" => (COMPARE, Operator::Unequal),
        "<" => (COMPARE, Operator::Less),
        "<=" => (COMPARE, Operator::AtMost),
        ">" => (COMPARE, Operator::Greater),
        ">=" => (COMPARE, Operator::AtLeast),
        "+" => (4, Operator::Add),
        "-" => (4, Operator::Subtract),
        "*" => (5, Operator::Multiply),
        "/" => (5, Operator::Divide),
        "%" => (5, Operator::Modulo),
        _ => return None,
    })
}

impl Parser<'_> {
    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.at).map(String::as_str)
    }

    fn next(&mut self) -> Result<&str, String> {
        let token = self.tokens.get(self.at).ok_or("the condition is incomplete")?;
        self.at += 1;
        Ok(token)
    }

    fn expect(&mut self, wanted: &str) -> Result<(), String> {
        let found = self.next()?;
        if found == wanted { Ok(()) } else { Err(format!("expected `{wanted}` instead of `{found}` in the condition")) }
    }

    fn take(&mut self, wanted: &str) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    /// Parses operands whose operators bind more tightly than `least`.
    fn expression(&mut self, least: u8) -> Result<Expression, String> {
        // Counted for each level, since both the parser and the evaluation recurse.
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return Err(format!("the condition is nested deeper than {NESTING_MAX} levels"));
        }
        let mut left = self.operand()?;
        // Only operators that bind more tightly, so that those of the same level group to the left.
        while let Some((binds, operator)) = self.peek().and_then(operator).filter(|(binds, _)| *binds > least) {
            self.at += 1;
            let right = self.expression(binds)?;
            left = Expression::Binary(operator, Box::new(left), Box::new(right));
        }
        self.nesting -= 1;
        Ok(left)
    }

    fn operand(&mut self) -> Result<Expression, String> {
        let token = self.next()?.to_owned();
        match token.as_str() {
            "(" => {
                let inner = self.expression(0)?;
                self.expect(")").map(|()| inner)
            }
            // `not a == b` means `(not a) == b`: `not` binds more tightly than a comparison.
            "not" | "NOT" => Ok(Expression::Not(Box::new(self.expression(COMPARE)?))),
            "${" => self.variable(),
            "[" => Ok(Expression::Constant(self.sequence("]", Self::constant)?.into())),
            "{" => {
                let entries = self.sequence("}", Self::entry)?;
                Ok(Expression::Constant(Value::Object(entries.into_iter().collect::<Map<_, _>>())))
            }
            // A name is a function only in front of a parenthesis; elsewhere it is a value.
            name if self.peek() == Some("(") => {
                let function = FUNCTIONS.iter().find(|(known, _)| *known == name).map(|(_, function)| *function);
                let function = function.ok_or_else(|| format!("unknown function `{name}` in the condition"))?;
                self.at += 1;
                Ok(Expression::Call(function, self.sequence(")", |parser| parser.expression(0))?))
            }
            text => constant(text).map(Expression::Constant).ok_or_else(|| format!("`{text}` is not a value")),
        }
    }

    fn variable(&mut self) -> Result<Expression, String> {
        let mut operands = Vec::new();
        loop {
            let text = self.next()?;
            operands.push(constant(text).map_or_else(|| Operand::Name(text.to_owned()), Operand::Constant));
            match self.next()? {
                "}" => return Ok(Expression::Variable(operands)),
                "|" | ":" => {}
                other => return Err(format!("unexpected `{other}` in a variable of the condition")),
            }
        }
    }

    /// Parses comma-separated items up to `end`.
    fn sequence<T>(&mut self, end: &str, one: fn(&mut Self) -> Result<T, String>) -> Result<Vec<T>, String> {
        let mut items = Vec::new();
        if self.take(end) {
            return Ok(items);
        }
        loop {
            items.push(one(self)?);
            if self.take(end) {
                return Ok(items);
            }
            self.expect(",")?;
        }
    }

    fn constant(&mut self) -> Result<Value, String> {
        let text = self.next()?;
        constant(text).ok_or_else(|| format!("`{text}` is not a constant"))
    }

    fn entry(&mut self) -> Result<(String, Value), String> {
        let key = self.next()?;
        // Keys may be written with or without quotes.
        let key = constant(key).and_then(|key| key.as_str().map(str::to_owned)).unwrap_or_else(|| key.to_owned());
        self.expect(":")?;
        Ok((key, self.constant()?))
    }
}

/// Returns the value of a string, a number or a boolean.
fn constant(text: &str) -> Option<Value> {
    match text {
        "true" | "TRUE" => return Some(true.into()),
        "false" | "FALSE" => return Some(false.into()),
        _ => {}
    }
    if text.starts_with(['\'', '"']) {
        return Some(text[1..text.len() - 1].into());
    }
    // Words such as `inf` and `5e3` would be numbers for the parser of the standard library.
    if !text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.')) {
        return None;
    }
    let float = || text.parse().ok().and_then(Number::from_f64);
    text.parse::<i64>().ok().map(Number::from).or_else(float).map(Value::Number)
}
