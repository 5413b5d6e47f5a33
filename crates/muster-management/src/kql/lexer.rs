//! Splits a query into tokens.

use std::ops::Range;

use muster_core::Error;

use super::{Comparison, Term, syntax_error};

/// Maximum length of a query, bytes; sufficient for sets of thousands of ids.
const MAX_BYTES: usize = 256 << 10;

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Open,
    Close,
    Colon,
    Compare(Comparison),
    And,
    Or,
    Not,
    Word(Term),
}

/// Splits `text` into tokens.
pub fn tokens(text: &str) -> Result<Vec<Token>, Error> {
    if text.len() > MAX_BYTES {
        return Err(syntax_error(format!("longer than {MAX_BYTES} bytes")));
    }
    let mut rest = text.trim_start();
    let mut tokens = Vec::new();
    while !rest.is_empty() {
        let (token, after) = next(rest)?;
        tokens.push(token);
        rest = after.trim_start();
    }
    Ok(tokens)
}

/// A token, and the bytes that it takes.
pub type Spanned = (Token, Range<usize>);

/// Splits `text` into tokens with their places, as far as it can be read; and the place of what cannot.
pub fn spans(text: &str) -> (Vec<Spanned>, Option<Range<usize>>) {
    let mut spans = Vec::new();
    if text.len() > MAX_BYTES {
        return (spans, None);
    }
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let start = text.len() - rest.len();
        let Ok((token, after)) = next(rest) else { return (spans, Some(start..text.len())) };
        spans.push((token, start..text.len() - after.len()));
        rest = after.trim_start();
    }
    (spans, None)
}

fn next(text: &str) -> Result<(Token, &str), Error> {
    // `<=` comes before `<`, since the first match counts.
    const MARKS: [(&str, Token); 7] = [
        ("(", Token::Open),
        (")", Token::Close),
        (":", Token::Colon),
        ("<=", Token::Compare(Comparison::AtMost)),
        (">=", Token::Compare(Comparison::AtLeast)),
        ("<", Token::Compare(Comparison::Less)),
        (">", Token::Compare(Comparison::Greater)),
    ];
    if let Some((mark, token)) = MARKS.iter().find(|(mark, _)| text.starts_with(mark)) {
        return Ok((token.clone(), &text[mark.len()..]));
    }
    match text.strip_prefix('"') {
        Some(quoted) => quoted_word(quoted),
        None => bare_word(text),
    }
}

fn quoted_word(text: &str) -> Result<(Token, &str), Error> {
    let mut word = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Word(Term { text: word, pattern: false }), &text[at + 1..])),
            '\\' => word.extend(chars.next().map(|(_, escaped)| escaped)),
            c => word.push(c),
        }
    }
    Err(syntax_error("unclosed quotation mark"))
}

fn bare_word(text: &str) -> Result<(Token, &str), Error> {
    let mut word = String::new();
    let mut escaped = false;
    let mut end = text.len();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                escaped = true;
                word.extend(chars.next().map(|(_, c)| c));
            }
            c if c.is_whitespace() || "():<>\"".contains(c) => {
                end = at;
                break;
            }
            // KQL uses braces for nested documents, which no list here has.
            '{' | '}' => return Err(syntax_error("nested queries with { } are not supported")),
            c => word.push(c),
        }
    }
    // Escaped or quoted, `and`, `or`, `not` and `*` are plain text.
    let token = match word.to_ascii_lowercase().as_str() {
        "and" if !escaped => Token::And,
        "or" if !escaped => Token::Or,
        "not" if !escaped => Token::Not,
        _ => Token::Word(Term { pattern: word.contains('*') && !escaped, text: word }),
    };
    Ok((token, &text[end..]))
}
