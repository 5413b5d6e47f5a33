//! Texts with variables: `${provider.key|'fallback'}` (AG §4.2).

use serde_json::Value;

use super::{DEFAULT_PROVIDER, Scope};

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Vec<Alternative>),
}

/// One of the alternatives of a variable; the first with a value is used.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Alternative {
    Name(String),
    Constant(String),
}

/// A parsed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// A variable without a value: its text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no value for ${{{0}}}")]
pub struct Missing(pub String);

impl Missing {
    /// Returns the provider that the variable names: `env` of `env.HOME`.
    pub fn provider(&self) -> &str {
        self.0.split('.').next().unwrap_or_default()
    }
}

impl Template {
    /// Parses a text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, opened)) = rest.split_once("${") {
            // A variable ends at the first character that it cannot contain, not at the next brace.
            let end = opened.find(|c| !is_allowed(c)).unwrap_or(opened.len());
            let Some(after) = opened[end..].strip_prefix('}') else {
                return Err(format!("the variable that begins with ${{{:.40} is not closed", &opened[..end]));
            };
            // `$${…}` is the literal text `${…}`.
            if let Some(before) = before.strip_suffix('$') {
                parts.push(Part::Text(format!("{before}${{{}}}", &opened[..end])));
            } else {
                parts.push(Part::Text(before.to_owned()));
                parts.push(Part::Variable(alternatives(&opened[..end])?));
            }
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        // So that a text of one variable is a single part, which `render` looks for.
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self(parts))
    }

    /// Returns the names of its variables.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let variables = self.0.iter().filter_map(|part| match part {
            Part::Variable(alternatives) => Some(alternatives),
            Part::Text(_) => None,
        });
        variables.flatten().filter_map(|alternative| match alternative {
            Alternative::Name(name) => Some(name.as_str()),
            Alternative::Constant(_) => None,
        })
    }

    /// Returns the value. A text that consists of a single variable becomes the value itself, which may be an object.
    pub fn render(&self, scope: Scope<'_>) -> Result<Value, Missing> {
        if let [Part::Variable(alternatives)] = self.0.as_slice() {
            return resolve(alternatives, scope);
        }
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Variable(alternatives) => match resolve(alternatives, scope)? {
                    Value::String(value) => text.push_str(&value),
                    other => text.push_str(&other.to_string()),
                },
            }
        }
        Ok(text.into())
    }
}

fn resolve(alternatives: &[Alternative], scope: Scope<'_>) -> Result<Value, Missing> {
    let value = |alternative: &Alternative| match alternative {
        Alternative::Name(name) => scope.get(name).cloned(),
        Alternative::Constant(text) => Some(text.clone().into()),
    };
    alternatives.iter().find_map(value).ok_or_else(|| {
        let names = alternatives.iter().map(|alternative| match alternative {
            Alternative::Name(name) | Alternative::Constant(name) => name.as_str(),
        });
        Missing(names.collect::<Vec<_>>().join("|"))
    })
}

fn is_allowed(c: char) -> bool {
    c.is_alphanumeric() || c.is_whitespace() || "\\-_|.'\":/?".contains(c)
}

/// Parses alternatives: names and quoted constants separated by `|`, with a constant after `:`.
fn alternatives(inside: &str) -> Result<Vec<Alternative>, String> {
    let (mut found, mut text, mut quote) = (Vec::new(), String::new(), None);
    let (mut constant, mut escaped) = (false, false);
    for c in inside.chars() {
        match (c, quote) {
            ('|' | ':', _) if escaped => return Err(format!("`{c}` cannot be escaped in ${{{inside}}}")),
            ('|' | ':', None) => {
                found.extend(alternative(std::mem::take(&mut text), constant)?);
                constant = c == ':';
            }
            ('"' | '\'', None) if !escaped => (quote, constant) = (Some(c), true),
            ('"' | '\'', Some(opened)) if !escaped && opened == c => quote = None,
            // A backslash is kept only if it is escaped itself.
            ('\\', _) if !escaped => {}
            (c, None) if c.is_whitespace() => {}
            (c, _) => text.push(c),
        }
        escaped = !escaped && c == '\\';
    }
    if quote.is_some() {
        return Err(format!("a string is not closed in ${{{inside}}}"));
    }
    found.extend(alternative(text, constant)?);
    Ok(found)
}

fn alternative(text: String, constant: bool) -> Result<Option<Alternative>, String> {
    match text {
        text if constant => Ok(Some(Alternative::Constant(text))),
        text if text.is_empty() => Ok(None),
        text if text.ends_with('.') => Err(format!("a name must not end with a dot: {text}")),
        text if text.contains('.') => Ok(Some(Alternative::Name(text))),
        text => Ok(Some(Alternative::Name(format!("{DEFAULT_PROVIDER}.{text}")))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::variables::VariableSets;

    fn rendered(text: &str) -> Result<Value, String> {
        let context = json!({"env": {"HOME": "/srv", "N": 5}, "host": {"name": "h", "ip": ["a", "b"]}});
        let sets = VariableSets { context: context.as_object().unwrap().clone(), dynamic: Vec::new() };
        let template = Template::parse(text)?;
        template.render(sets.context()).map_err(|error| error.to_string())
    }

    #[test]
    fn variables_are_replaced_by_the_first_alternative_with_a_value() {
        for (text, expected) in [
            ("plain $x {y} $", json!("plain $x {y} $")),
            ("${env.HOME}", json!("/srv")),
            ("${HOME}/x", json!("/srv/x")),
            ("${host.ip}", json!(["a", "b"])),
            ("ip ${host.ip}", json!("ip [\"a\",\"b\"]")),
            ("${env.N}", json!(5)),
            ("n${env.N}${env.N}", json!("n55")),
            ("${env.NONE|host.name|'x'}", json!("h")),
            ("${env.NONE | \"it's\"}", json!("it's")),
            ("${env.NONE:localhost}:80", json!("localhost:80")),
            ("${env.NONE:'http://x:80'}", json!("http://x:80")),
            ("${env.NONE|''}", json!("")),
            ("$${env.HOME} ${env.HOME}", json!("${env.HOME} /srv")),
            ("$$${env.HOME}", json!("$${env.HOME}")),
            ("${'a\\\\b'}", json!("a\\b")),
        ] {
            assert_eq!(rendered(text), Ok(expected), "{text}");
        }
        assert_eq!(rendered("x${env.NONE|host.none}"), Err("no value for ${env.NONE|host.none}".into()));
    }

    #[test]
    fn a_malformed_variable_is_an_error() {
        for text in ["${env.HOME", "${", "${a,b}", "${a.}", "${a.|b}", "${a|'open}", "${a\\|b}", "${a ${b}}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_a_panic(text in "[$ {}a.|:'\"\\\\é=]{0,24}") {
            let _ = rendered(&text);
        }
    }
}
