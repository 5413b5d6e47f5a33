//! Builds the value of a document and the positions of its fields from parser events.

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use serde_json::{Map, Value};

use super::scalar::{self, Ambiguous};
use super::{Document, MAX_BYTES, MAX_DEPTH, MAX_NODES, Place, Places};
use crate::policy::problem::{Problem, Problems, shortened};
use crate::secret_refs::join;

/// Maximum number of ambiguous scalars that are collected before parsing stops.
const MAX_PROBLEMS: usize = 100;

pub(super) fn read(text: &str) -> Result<Document, Problems> {
    if text.len() > MAX_BYTES {
        return Err(Problems(vec![Problem::new("", format!("longer than {MAX_BYTES} bytes"), "")]));
    }
    let mut options = granit_parser::Options::default();
    // The original text is stored, so comments need not survive parsing.
    options.set_emit_comments(false);
    let events = Parser::new_from_str_with_options(text, options);
    let mut reader = Reader { events, nodes: 0, places: Places::default(), problems: Problems::default() };
    match reader.document() {
        Ok(value) => {
            let Reader { places, problems, .. } = reader;
            problems.into_result().map(|()| Document { value, places })
        }
        // A structural problem comes last, after the ambiguous scalars that were found before it.
        Err(problem) => {
            reader.problems.0.push(*problem);
            Err(reader.problems)
        }
    }
}

struct Reader<'a> {
    events: Parser<'a, granit_parser::StrInput<'a>>,
    nodes: usize,
    places: Places,
    /// Problems of scalars. A structural problem ends parsing instead.
    problems: Problems,
}

// Boxed, since every recursion level returns one.
type Read<T> = Result<T, Box<Problem>>;

impl<'a> Reader<'a> {
    fn document(&mut self) -> Read<Value> {
        let mut value = None;
        loop {
            let (event, span) = self.next("")?;
            match event {
                Event::StreamEnd => return Ok(value.unwrap_or(Value::Null)),
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if value.is_some() => {
                    return Err(problem("", &span, "more than one document", "keep one, without `---` after it"));
                }
                Event::DocumentStart(..) => {}
                event => value = Some(self.node(event, &span, "", 0)?),
            }
        }
    }

    fn next(&mut self, path: &str) -> Read<(Event<'a>, Span)> {
        match self.events.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(syntax(path, &error)),
            None => Ok((Event::StreamEnd, Span::empty(granit_parser::Marker::new(0, 1, 0)))),
        }
    }

    fn node(&mut self, event: Event<'a>, span: &Span, path: &str, depth: usize) -> Read<Value> {
        self.nodes += 1;
        // Checked before the node is built: a megabyte of `[` or of `a,` must not cost memory first.
        if self.nodes > MAX_NODES || depth > MAX_DEPTH {
            let reason = format!("more than {MAX_NODES} values, or deeper than {MAX_DEPTH} levels");
            return Err(problem(path, span, reason, ""));
        }
        // Aliases expand exponentially ("billion laughs"), and would make positions ambiguous.
        if matches!(event, Event::Alias(_) | Event::UnresolvedAlias(_)) || event.anchor_id().is_some_and(|id| id != 0) {
            return Err(problem(path, span, "aliases and anchors are not allowed", "repeat the value instead"));
        }
        match event {
            Event::Scalar(text, style, _, tag) => self.scalar(&text, style, tag.as_deref(), span, path),
            Event::SequenceStart(_, _, tag) => {
                check_tag(tag.as_deref(), "seq", span, path)?;
                self.list(path, depth)
            }
            Event::MappingStart(_, _, tag) => {
                check_tag(tag.as_deref(), "map", span, path)?;
                self.mapping(path, depth)
            }
            _ => Err(problem(path, span, "expected a value", "")),
        }
    }

    fn list(&mut self, path: &str, depth: usize) -> Read<Value> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next(path)?;
            if event == Event::SequenceEnd {
                return Ok(Value::Array(items));
            }
            let index = items.len().to_string();
            let path = join(path, &index);
            self.places.note(&path, &index, place(&span));
            items.push(self.node(event, &span, &path, depth + 1)?);
        }
    }

    fn mapping(&mut self, path: &str, depth: usize) -> Read<Value> {
        let mut fields = Map::new();
        loop {
            let (event, span) = self.next(path)?;
            let key = match event {
                Event::MappingEnd => return Ok(Value::Object(fields)),
                Event::Scalar(text, style, 0, tag) => self.key(&text, style, tag.as_deref(), &span, path)?,
                Event::Alias(_) | Event::UnresolvedAlias(_) | Event::Scalar(..) => {
                    return Err(problem(
                        path,
                        &span,
                        "aliases and anchors are not allowed",
                        "repeat the value instead",
                    ));
                }
                _ => return Err(problem(path, &span, "a key must be a string", "")),
            };
            // YAML parsers disagree on which duplicate counts.
            if fields.contains_key(&key) {
                return Err(problem(path, &span, format!("duplicate key `{}`", shortened(&key)), "remove one of them"));
            }
            let path = join(path, &key);
            // The position of the key, since that is where people look for a field.
            self.places.note(&path, &key, place(&span));
            let (event, span) = self.next(&path)?;
            let value = self.node(event, &span, &path, depth + 1)?;
            fields.insert(key, value);
        }
    }

    fn key(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: &Span, path: &str) -> Read<String> {
        check_tag(tag, "str", span, path)?;
        self.nodes += 1;
        if style == ScalarStyle::Plain && tag.is_none() {
            // A quoted "<<" is an ordinary key.
            if text == "<<" {
                return Err(problem(path, span, "merge keys are not allowed", "repeat the fields instead"));
            }
            if let Err(ambiguous) = scalar::plain_key(text) {
                // Continue with the text as it is, to report more problems at once.
                self.ambiguous(&join(path, text), span, ambiguous)?;
            }
        }
        Ok(text.to_owned())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: &Span, path: &str) -> Read<Value> {
        check_tag(tag, "str", span, path)?;
        if style != ScalarStyle::Plain || tag.is_some() {
            return Ok(Value::String(text.to_owned()));
        }
        match scalar::plain(text) {
            Ok(value) => Ok(value),
            Err(ambiguous) => self.ambiguous(path, span, ambiguous).map(|()| Value::Null),
        }
    }

    fn ambiguous(&mut self, path: &str, span: &Span, Ambiguous { reason, remedy }: Ambiguous) -> Read<()> {
        let problem = problem(path, span, reason, remedy);
        if self.problems.0.len() >= MAX_PROBLEMS {
            return Err(problem);
        }
        self.problems.0.push(*problem);
        Ok(())
    }
}

/// Accepts `!!str` on scalars, and tags that state the type that a node has anyway. Any other tag would have to be
/// interpreted.
fn check_tag(tag: Option<&Tag>, own: &str, span: &Span, path: &str) -> Read<()> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema_tag(own) => {
            let reason = format!("the tag `{}` is not allowed", shortened(&tag.original()));
            Err(problem(path, span, reason, "write the value without it; quote it if it is a string"))
        }
        _ => Ok(()),
    }
}

fn syntax(path: &str, error: &ScanError) -> Box<Problem> {
    let marker = error.marker();
    let place = Place { line: marker.line() as u64, column: marker.col() as u64 + 1 };
    // The parser's message can quote the document.
    let reason: String = error.info().chars().take(300).collect();
    let remedy = match reason.contains("tab") {
        true => "indent with spaces, not with tabs",
        false => "check the indentation at this place, and quote values that contain `{`, `}`, `: ` or ` #`",
    };
    Box::new(Problem::new(path, format!("not valid YAML: {reason}"), remedy).at(place))
}

fn problem(path: &str, span: &Span, reason: impl Into<String>, remedy: impl Into<String>) -> Box<Problem> {
    Box::new(Problem::new(path, reason, remedy).at(place(span)))
}

fn place(span: &Span) -> Place {
    Place { line: span.start.line() as u64, column: span.start.col() as u64 + 1 }
}
