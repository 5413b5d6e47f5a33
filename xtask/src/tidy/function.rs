//! Finds functions in formatted source code, from the `fn` line to the closing brace with the same indentation.

/// Function.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Number of its first line, from 1.
    pub line: usize,
    /// Number of lines of its body.
    pub lines: usize,
}

/// Returns all functions with a body.
pub fn functions(lines: &[&str]) -> Vec<Function> {
    let named = lines.iter().enumerate().filter_map(|(at, line)| Some((at, name(line)?)));
    named
        .filter_map(|(at, name)| Some(Function { name: name.to_owned(), line: at + 1, lines: body(&lines[at..])? }))
        .collect()
}

/// Returns the name if the line is the beginning of a function.
fn name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    if rest.starts_with("pub(") {
        rest = rest.split_once(')')?.1.trim_start();
    }
    // In the order that Rust prescribes.
    for word in ["pub ", "default ", "const ", "async ", "unsafe ", "extern \"C\" "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let rest = rest.strip_prefix("fn ")?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    Some(&rest[..end])
}

/// Returns the number of lines between the first line and the closing brace, or `None` for a declaration.
fn body(lines: &[&str]) -> Option<usize> {
    let first = lines.first()?;
    let indent = &first[..first.len() - first.trim_start().len()];
    let mut opened = false;
    for (length, line) in lines.iter().enumerate() {
        opened |= line.contains('{');
        // A function on one line.
        let whole = length == 0 && opened && line.trim_end().ends_with('}');
        if whole || line.trim_end().strip_prefix(indent) == Some("}") {
            return Some(length.saturating_sub(1));
        }
        if !opened && line.trim_end().ends_with(';') {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<(String, usize, usize)> {
        let lines: Vec<_> = text.lines().collect();
        functions(&lines).into_iter().map(|one| (one.name, one.line, one.lines)).collect()
    }

    #[test]
    fn function_bodies_are_counted_and_declarations_are_not() {
        let text = "trait T {\n    fn a(&self);\n    fn b(\n        &self,\n    ) -> u8;\n}\npub(crate) async fn c() {\n    1;\n    2;\n}\nfn d() {}\n";
        assert_eq!(shown(text), [("c".into(), 7, 2), ("d".into(), 11, 0)]);
    }

    #[test]
    fn a_where_clause_belongs_to_the_function() {
        assert_eq!(
            shown("    fn a<T>(t: T)\n    where\n        T: Copy,\n    {\n        t;\n    }\n"),
            [("a".into(), 1, 4)]
        );
    }
}
