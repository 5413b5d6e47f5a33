//! Where in a query an error is, for pages that mark it.

use std::ops::Range;

use super::agents::is_field;
use super::lexer::{Token, spans};
use super::parser::first_unexpected;

/// Returns the bytes of a query over agents that an error is about: the token that is not expected, an unknown field, or
/// nothing at the end. `None` if it is about a value, or if there is none.
pub fn of_error(text: &str) -> Option<Range<usize>> {
    let (tokens, unreadable) = spans(text);
    if unreadable.is_some() {
        return unreadable;
    }
    let words: Vec<Token> = tokens.iter().map(|(token, _)| token.clone()).collect();
    if let Some(at) = first_unexpected(words) {
        return Some(tokens.get(at).map_or(text.len()..text.len(), |(_, span)| span.clone()));
    }
    let unknown = tokens.windows(2).find(|pair| match (&pair[0].0, &pair[1].0) {
        (Token::Word(word), Token::Colon | Token::Compare(_)) => !is_field(&word.text),
        _ => false,
    });
    unknown.map(|pair| pair[0].1.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_an_error_is_its_token() {
        let marked = |text: &'static str| of_error(text).map(|span| &text[span]);
        assert_eq!(marked("status:online and  nonsense:x"), Some("nonsense"));
        assert_eq!(marked("status::online"), Some(":"));
        assert_eq!(marked("(status:online"), Some(""));
        assert_eq!(marked("tags:a b:c )"), Some("b"));
        assert_eq!(marked("status:online)"), Some(")"));
        assert_eq!(marked("hostname:\"web"), Some("\"web"));
        assert_eq!(marked("tags:é and {"), Some("{"));
        assert_eq!((marked("status:online"), marked(""), marked("status:odd")), (None, None, None));
    }
}
