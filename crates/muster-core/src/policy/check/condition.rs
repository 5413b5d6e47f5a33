//! Parser for conditions (AG §4.2). Agents reject the whole policy if they can't parse one of its conditions.
//!
//! A condition is an expression of comparisons, arithmetic, `and`, `or`, `not`, functions, lists and dictionaries of
//! constants, and variables such as `${provider.key|'fallback'}`. This parser only checks it; the value depends on the
//! host.

use crate::policy::problem::{nearest, shortened};

// The parser is recursive.
/// Maximum nesting of parentheses and functions.
const MAX_NESTING: usize = 50;

// The number and the types of arguments are not checked, since they can depend on variables.
/// Functions, and whether they return a boolean.
const FUNCTIONS: [(&str, bool); 17] = [
    ("add", false),
    ("arrayContains", true),
    ("concat", false),
    ("divide", false),
    ("endsWith", true),
    ("exists", true),
    ("hasKey", true),
    ("indexOf", false),
    ("length", false),
    ("match", true),
    ("modulo", false),
    ("multiply", false),
    ("number", false),
    ("startsWith", true),
    ("string", false),
    ("stringContains", true),
    ("subtract", false),
];

/// Checks a condition. The error contains the column, from 1.
pub(super) fn check(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("a condition must not be empty".to_owned());
    }
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, at: 0, nesting: 0, end: text.chars().count() + 1 };
    let kind = parser.expression(0)?;
    match parser.tokens.get(parser.at) {
        Some(extra) => Err(format!("unexpected `{}` at column {}", shortened(&extra.text), extra.column)),
        None if kind == Kind::Other => Err("a condition must evaluate to a boolean".to_owned()),
        None => Ok(()),
    }
}

/// Type of an expression, as far as it is known without evaluating it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Boolean,
    /// A variable, whose type depends on its provider.
    Unknown,
    Other,
}

#[derive(Debug)]
struct Token {
    text: String,
    column: usize,
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let chars: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&first) = chars.get(at) {
        if matches!(first, ' ' | '\t' | '\r' | '\n') {
            at += 1;
            continue;
        }
        let length = token_length(&chars[at..]).map_err(|reason| format!("{reason} at column {}", at + 1))?;
        found.push(Token { text: chars[at..at + length].iter().collect(), column: at + 1 });
        at += length;
    }
    Ok(found)
}

/// Returns the length of the token at the beginning of `rest`.
fn token_length(rest: &[char]) -> Result<usize, String> {
    let is_word = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '.');
    match rest {
        [quote @ ('\'' | '"'), inner @ ..] => match inner.iter().position(|c| c == quote || matches!(c, '\r' | '\n')) {
            Some(end) if inner[end] == *quote => Ok(end + 2),
            _ => Err(format!("the string that begins with {quote} is not closed")),
        },
        ['$', '{', ..] | ['=', '=', ..] | ['!', '=', ..] | ['>', '=', ..] | ['<', '=', ..] => Ok(2),
        ['$', ..] => Err("`$` without `{`".to_owned()),
        ['=', ..] => Err("`=` is not an operator; use `==`".to_owned()),
        // After the operators of two characters, which begin with the same ones.
        ['>' | '<' | '+' | '*' | '%' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | ',' | ':', ..] => Ok(1),
        // Hyphens and slashes are part of names and numbers; on their own they are operators. So `5-3` is one invalid
        // token, as it is for agents.
        [first, ..] if is_word(first) => Ok(rest.iter().take_while(|c| is_word(c)).count()),
        [first, ..] => Err(format!("unexpected character `{first}`")),
        [] => Ok(0),
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    nesting: usize,
    end: usize,
}

const OR: u8 = 1;
const AND: u8 = 2;
const COMPARE: u8 = 3;

/// Returns the precedence of an operator; `None` if the token is not an operator.
fn precedence(operator: &str) -> Option<u8> {
    match operator {
        "or" | "OR" => Some(OR),
        "and" | "AND" => Some(AND),
        "==" | "!=" | "<" | "<=" | ">" | ">=" => Some(COMPARE),
        "+" | "-" => Some(4),
        "*" | "/" | "%" => Some(5),
        _ => None,
    }
}

impl Parser<'_> {
    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.at).map(|token| token.text.as_str())
    }

    fn take(&mut self, wanted: &str) -> bool {
        let is_there = self.peek() == Some(wanted);
        self.at += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, wanted: &str) -> Result<(), String> {
        if self.take(wanted) { Ok(()) } else { Err(self.unexpected(&format!("`{wanted}`"))) }
    }

    fn unexpected(&self, wanted: &str) -> String {
        match self.tokens.get(self.at) {
            Some(token) => {
                format!("expected {wanted} instead of `{}` at column {}", shortened(&token.text), token.column)
            }
            None => format!("expected {wanted} at the end, column {}", self.end),
        }
    }

    // Precedence climbing: parses operators that bind more tightly than `least`.
    fn expression(&mut self, least: u8) -> Result<Kind, String> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(format!("nested deeper than {MAX_NESTING} levels"));
        }
        let mut kind = self.operand()?;
        while let Some(binds) = self.peek().and_then(precedence).filter(|binds| *binds > least) {
            let operator = &self.tokens[self.at];
            self.at += 1;
            let right = self.expression(binds)?;
            // Agents fail at run time if an operand of `and` or `or` is not a boolean; report what is certain to fail.
            if binds <= AND && (kind == Kind::Other || right == Kind::Other) {
                let Token { text, column } = operator;
                return Err(format!("both sides of `{text}` at column {column} must be true or false"));
            }
            kind = if binds <= COMPARE { Kind::Boolean } else { Kind::Other };
        }
        // Not reached after an error, which ends parsing anyway.
        self.nesting -= 1;
        Ok(kind)
    }

    fn operand(&mut self) -> Result<Kind, String> {
        let Some(token) = self.tokens.get(self.at) else { return Err(self.unexpected("a value")) };
        // A name without a parenthesis is not a call, and gets a message of its own below.
        let calls = self.tokens.get(self.at + 1).is_some_and(|next| next.text == "(");
        match token.text.as_str() {
            "(" => {
                self.at += 1;
                let kind = self.expression(0)?;
                self.expect(")").map(|()| kind)
            }
            "not" | "NOT" => {
                self.at += 1;
                // `not` binds more tightly than a comparison: `not 1 == 2` negates the 1.
                match self.expression(COMPARE)? {
                    Kind::Other => {
                        Err(format!("`not` at column {} must be followed by a boolean; use parentheses", token.column))
                    }
                    _ => Ok(Kind::Boolean),
                }
            }
            "${" => self.variable(),
            "[" => self.sequence("]", Self::constant),
            "{" => self.sequence("}", Self::entry),
            name if calls && is_name(name) => self.call(),
            text if is_boolean(text) => {
                self.at += 1;
                Ok(Kind::Boolean)
            }
            text if is_quoted(text) || is_number(text) => {
                self.at += 1;
                Ok(Kind::Other)
            }
            // Before the next arm, which would suggest writing `and` as a variable.
            operator if precedence(operator).is_some() => Err(self.unexpected("a value")),
            name if is_name(name.trim_start_matches(|c: char| !c.is_ascii_alphabetic())) || name.contains('.') => {
                let name = shortened(name);
                Err(format!("`{name}` at column {} is not a value; for a variable, write `${{{name}}}`", token.column))
            }
            _ => Err(self.unexpected("a value")),
        }
    }

    /// Parses a variable: `${a.b|c.d|'constant'}`.
    fn variable(&mut self) -> Result<Kind, String> {
        let opened = self.tokens[self.at].column;
        self.at += 1;
        while !self.take("}") {
            match self.peek() {
                Some("|" | ":") => self.at += 1,
                Some(text)
                    if is_quoted(text)
                        || text.starts_with(|c: char| c.is_ascii_alphanumeric() || "_-/".contains(c)) =>
                {
                    self.at += 1;
                }
                _ => return Err(format!("the variable that begins at column {opened} is not closed with `}}`")),
            }
        }
        Ok(Kind::Unknown)
    }

    fn call(&mut self) -> Result<Kind, String> {
        let token = &self.tokens[self.at];
        let Some((_, is_boolean)) = FUNCTIONS.iter().find(|(name, _)| *name == token.text) else {
            let names: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
            let near = nearest(&token.text, &names).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            return Err(format!("unknown function `{}` at column {}{near}", shortened(&token.text), token.column));
        };
        self.at += 1;
        self.sequence(")", |parser| parser.expression(0).map(drop))?;
        Ok(if *is_boolean { Kind::Boolean } else { Kind::Other })
    }

    /// Parses comma-separated items from the current opening bracket to `end`.
    fn sequence(&mut self, end: &str, one: fn(&mut Self) -> Result<(), String>) -> Result<Kind, String> {
        self.at += 1;
        if self.take(end) {
            return Ok(Kind::Other);
        }
        loop {
            one(self)?;
            if self.take(end) {
                return Ok(Kind::Other);
            }
            self.expect(",")?;
        }
    }

    fn constant(&mut self) -> Result<(), String> {
        match self.peek() {
            Some(text) if is_boolean(text) || is_quoted(text) || is_number(text) => {
                self.at += 1;
                Ok(())
            }
            _ => Err(self.unexpected("a constant")),
        }
    }

    fn entry(&mut self) -> Result<(), String> {
        match self.peek() {
            Some(key) if is_quoted(key) || is_name(key) => self.at += 1,
            _ => return Err(self.unexpected("a key")),
        }
        self.expect(":")?;
        self.constant()
    }
}

fn is_quoted(text: &str) -> bool {
    text.starts_with(['\'', '"'])
}

fn is_boolean(text: &str) -> bool {
    matches!(text, "true" | "TRUE" | "false" | "FALSE")
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.split_once('.').map_or_else(|| is_digits(digits), |(whole, part)| is_digits(whole) && is_digits(part))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn valid_conditions_are_accepted() {
        for text in [
            "true",
            "${host.platform} == 'linux'",
            "${env.HOSTNAME|host.name|'fallback'} == \"my-hostname\"",
            "${env.A} != 'x' and not (${host.name} == 'y' or false)",
            "NOT true OR FALSE AND TRUE",
            "not (${docker.container.labels.co.elastic/x} == 1)",
            "not ${local.on}",
            "4 * (5 + 3) == -32",
            "2.0 >= ${a.b|2}",
            "1 == 1 AND 2 != 3",
            "10 - 4 / 2 % 3 < 7",
            "arrayContains([true, 1, 3.5, 'str'], 'str2', 3.5)",
            "hasKey({key1: 'val1', 'key2': 2}, 'key2')",
            "length(${kubernetes.labels}) == 0",
            "length([]) == length({})",
            "startsWith(concat('a', string(2)), \"a2\")",
            "exists(${local.x})",
            "match(${host.name}, '^web-[0-9]+$')",
            "${local_dynamic.enabled}",
            "  stringContains(\n'hello', 'o')\t",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn invalid_conditions_are_rejected_with_a_column() {
        for (text, expected) in [
            ("", "must not be empty"),
            ("  ", "must not be empty"),
            ("env_input_enabled = \"true\"", "use `==` at column 19"),
            ("${host.platform == 'linux'", "column 1 is not closed"),
            ("${host.platform} == 'linux", "is not closed at column 21"),
            ("${host.platform} === 'linux'", "use `==` at column 20"),
            ("${a.b} & ${c.d}", "unexpected character `&` at column 8"),
            ("host.platform == 'linux'", "for a variable, write `${host.platform}`"),
            ("${a} == linux", "`linux` at column 9 is not a value"),
            ("${a} ==", "expected a value at the end"),
            ("(true", "expected `)` at the end"),
            ("true)", "unexpected `)` at column 5"),
            ("true false", "unexpected `false` at column 6"),
            ("startWith('a', 'b')", "did you mean `startsWith`?"),
            ("donotexist()", "unknown function `donotexist` at column 1"),
            ("length('hello')", "must evaluate to a boolean"),
            ("'text'", "must evaluate to a boolean"),
            ("1 + 2", "must evaluate to a boolean"),
            ("[1, 2", "expected `,` at the end"),
            ("arrayContains([${a}], 1)", "expected a constant instead of `${` at column 16"),
            ("{a 1} == {}", "expected `:` instead of `1`"),
            ("and true", "expected a value"),
            ("$host == 'a'", "`$` without `{` at column 1"),
            ("${a} == 'x' && ${b} == 'y'", "unexpected character `&`"),
            ("not", "expected a value at the end"),
            ("not length('a') == 1", "`not` at column 1 must be followed by a boolean"),
            ("'a' and true", "both sides of `and` at column 5"),
            ("true or 1", "both sides of `or` at column 6"),
            ("5-3 == 2", "expected a value instead of `5-3`"),
        ] {
            let reason = check(text).unwrap_err();
            assert!(reason.contains(expected), "{text}: {reason}");
        }
        assert!(check(&"(".repeat(10_000)).is_err());
        assert!(check(&format!("{}true", "not ".repeat(10_000))).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_checked_without_a_panic(text in "[-a-z0-9 ${}|.'\"()=<!,\\[\\]:+*/]{0,40}") {
            let _ = check(&text);
        }
    }
}
