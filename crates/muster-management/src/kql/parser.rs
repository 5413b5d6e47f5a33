//! Parses tokens into a tree by recursive descent. `not` binds tighter than `and`, and `and` tighter than `or`.

use std::iter::Peekable;
use std::vec::IntoIter;

use muster_core::Error;

use super::lexer::{Token, tokens};
use super::{Expr, Term, syntax_error};

/// Maximum nesting. The parser and the compilers are recursive, so this bounds their stack.
const MAX_DEPTH: usize = 64;
/// Maximum length of free text, which is searched for in every row, bytes.
const MAX_TEXT: usize = 1024;

/// Parses a query; `None` for an empty one.
pub fn parse(text: &str) -> Result<Option<Expr>, Error> {
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        return Ok(None);
    }
    let mut parser = Parser::new(tokens);
    let expr = parser.any_of(&None)?;
    match parser.tokens.next() {
        None => Ok(Some(expr)),
        Some(token) => Err(unexpected(Some(&token))),
    }
}

/// Returns the position of the token at which a query is no query any more; its length if it ends too early.
pub fn first_unexpected(tokens: Vec<Token>) -> Option<usize> {
    let all = tokens.len();
    if all == 0 {
        return None;
    }
    let mut parser = Parser::new(tokens);
    let parsed = parser.any_of(&None);
    let left = parser.tokens.len();
    match parsed {
        Ok(_) if left == 0 => None,
        Ok(_) => Some(all - left),
        // What is unexpected was taken, except the end.
        Err(_) if parser.is_at_end => Some(all),
        Err(_) => Some(all - left - 1),
    }
}

struct Parser {
    tokens: Peekable<IntoIter<Token>>,
    depth: usize,
    /// Whether a token was needed after the last one.
    is_at_end: bool,
}

/// The field whose values are parsed, inside `field:( … )`.
type Field = Option<String>;

impl Parser {
    fn new(tokens: Vec<Token>) -> Self {
        Self { tokens: tokens.into_iter().peekable(), depth: 0, is_at_end: false }
    }

    fn take(&mut self) -> Option<Token> {
        let token = self.tokens.next();
        self.is_at_end |= token.is_none();
        token
    }

    fn any_of(&mut self, field: &Field) -> Result<Expr, Error> {
        let mut parts = vec![self.all_of(field)?];
        while self.tokens.next_if_eq(&Token::Or).is_some() {
            parts.push(self.all_of(field)?);
        }
        Ok(one_or(parts, Expr::Or))
    }

    fn all_of(&mut self, field: &Field) -> Result<Expr, Error> {
        let mut parts = vec![self.negated(field)?];
        while self.tokens.next_if_eq(&Token::And).is_some() {
            parts.push(self.negated(field)?);
        }
        Ok(one_or(parts, Expr::And))
    }

    fn negated(&mut self, field: &Field) -> Result<Expr, Error> {
        if self.tokens.next_if_eq(&Token::Not).is_none() {
            return self.primary(field);
        }
        self.deeper(|parser| Ok(Expr::Not(Box::new(parser.negated(field)?))))
    }

    fn primary(&mut self, field: &Field) -> Result<Expr, Error> {
        match (self.take(), field) {
            (Some(Token::Open), _) => self.group(field),
            (Some(Token::Word(term)), Some(field)) => Ok(Expr::Is(field.clone(), term)),
            (Some(Token::Word(term)), None) => self.after_word(term),
            (other, _) => Err(unexpected(other.as_ref())),
        }
    }

    fn group(&mut self, field: &Field) -> Result<Expr, Error> {
        let inside = self.deeper(|parser| parser.any_of(field))?;
        match self.take() {
            Some(Token::Close) => Ok(inside),
            other => Err(unexpected(other.as_ref())),
        }
    }

    /// Parses what follows a word: it is a field if `:` or a comparison follows, and free text otherwise. Several words of
    /// free text are one text.
    fn after_word(&mut self, word: Term) -> Result<Expr, Error> {
        if self.tokens.next_if_eq(&Token::Colon).is_some() {
            return self.values(word.text);
        }
        if let Some(Token::Compare(comparison)) = self.tokens.next_if(|token| matches!(token, Token::Compare(_))) {
            return Ok(Expr::Compare(word.text, comparison, self.word()?.text));
        }
        let mut text = word;
        while let Some(Token::Word(more)) = self.tokens.next_if(|token| matches!(token, Token::Word(_))) {
            text.text.push(' ');
            text.text.push_str(&more.text);
            text.pattern |= more.pattern;
        }
        if text.text.len() > MAX_TEXT {
            return Err(syntax_error(format!("the free text is longer than {MAX_TEXT} bytes")));
        }
        Ok(Expr::Text(text))
    }

    fn values(&mut self, field: String) -> Result<Expr, Error> {
        if self.tokens.next_if_eq(&Token::Open).is_some() {
            return self.group(&Some(field));
        }
        let value = self.word()?;
        // `_exists_:tags` is the Lucene spelling of `tags:*`.
        if field == "_exists_" {
            return Ok(Expr::Is(value.text, Term { text: "*".into(), pattern: true }));
        }
        Ok(Expr::Is(field, value))
    }

    fn word(&mut self) -> Result<Term, Error> {
        match self.take() {
            Some(Token::Word(term)) => Ok(term),
            other => Err(unexpected(other.as_ref())),
        }
    }

    fn deeper(&mut self, parse: impl FnOnce(&mut Self) -> Result<Expr, Error>) -> Result<Expr, Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(syntax_error(format!("nested deeper than {MAX_DEPTH}")));
        }
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }
}

fn one_or(mut parts: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
    match (parts.len(), parts.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            parts.extend(last);
            many(parts)
        }
    }
}

fn unexpected(token: Option<&Token>) -> Error {
    let found = match token {
        None => "unexpected end of the query".to_owned(),
        Some(Token::Open) => "unexpected \"(\"".into(),
        Some(Token::Close) => "unexpected \")\"".into(),
        Some(Token::Colon) => "unexpected \":\"".into(),
        Some(Token::Compare(_)) => "unexpected comparison".into(),
        Some(Token::And | Token::Or | Token::Not) => "unexpected `and`, `or` or `not`: a condition is missing".into(),
        Some(Token::Word(term)) => format!("unexpected {:?}", term.text),
    };
    syntax_error(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(field: &str, text: &str) -> Expr {
        Expr::Is(field.into(), Term { text: text.into(), pattern: text.contains('*') })
    }

    fn parsed(text: &str) -> Expr {
        parse(text).unwrap().unwrap()
    }

    #[test]
    fn mg20_not_binds_tighter_than_and_and_and_tighter_than_or() {
        let expected = Expr::Or(vec![Expr::And(vec![Expr::Not(Box::new(is("a", "1"))), is("b", "2")]), is("c", "3")]);
        assert_eq!(parsed("not a:1 and b:2 or c:3"), expected);
        assert_eq!(parsed("NOT a:1 AND b:2 Or c:3"), expected);
        let grouped = Expr::And(vec![is("a", "1"), Expr::Or(vec![is("b", "2"), Expr::Not(Box::new(is("c", "3")))])]);
        assert_eq!(parsed("a:1 and (b:2 or not c:3)"), grouped);
    }

    #[test]
    fn mg17_an_unquoted_uuid_is_one_value() {
        assert_eq!(parsed("policy_id:9a1c-22-ff"), is("policy_id", "9a1c-22-ff"));
    }

    #[test]
    fn value_lists_quotes_and_escapes() {
        assert_eq!(
            parsed(r#"status:(online or "error")"#),
            Expr::Or(vec![is("status", "online"), is("status", "error")])
        );
        let quoted = Expr::Is("tags".into(), Term { text: "a \"b\" *".into(), pattern: false });
        assert_eq!(parsed(r#"tags:"a \"b\" *""#), quoted);
        assert_eq!(parsed("not _exists_:tags"), Expr::Not(Box::new(is("tags", "*"))));
        assert_eq!(parse("  ").unwrap(), None);
    }

    #[test]
    fn mg23_what_is_no_query_is_a_syntax_error() {
        for bad in ["a:", "(a:1", "a:1)", "and", "a:1 and", "\"open", "a:(", "a::b", ":x", "a:1 b", "not", "a:{b:1}"] {
            let error = parse(bad).expect_err(bad);
            assert!(error.message.starts_with("KQLSyntaxError"), "{bad}: {}", error.message);
        }
    }

    #[test]
    fn length_and_free_text_are_bounded() {
        assert!(parse(&"a ".repeat(300)).is_ok());
        let error = parse(&"a ".repeat(1 << 16)).unwrap_err();
        assert!(error.message.contains("longer than 1024 bytes"), "{}", error.message);
        assert!(parse(&"a".repeat(2000)).is_err());
        let error = parse(&"a ".repeat(1 << 18)).unwrap_err();
        assert!(error.message.contains("longer than 262144 bytes"), "{}", error.message);
        let ids = (0..5000).map(|id| format!("{id:036}")).collect::<Vec<_>>().join(" or ");
        assert!(parse(&format!("id:({ids})")).is_ok(), "sets of thousands of ids fit");
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(parse(&"(".repeat(100_000)).is_err());
        assert!(parse(&"not ".repeat(100_000)).is_err());
    }
}
