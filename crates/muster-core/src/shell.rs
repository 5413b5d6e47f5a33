//! Commands that are printed for people to paste: what a name holds must reach the program as one word, and as no option.

/// A word as a POSIX shell reads it back. Control characters are replaced: a terminal would act on them.
#[must_use]
pub fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@,%=".contains(c);
    // Some shells look for a command of the name behind a leading `=`.
    if !text.is_empty() && !text.starts_with('=') && text.chars().all(is_plain) {
        return text.to_owned();
    }
    let printable: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("'{}'", printable.replace('\'', r"'\''"))
}

/// An option with its value in one word, `--name=VALUE`: a value that begins with `-` is no option of its own.
#[must_use]
pub fn option(name: &str, value: &str) -> String {
    format!("{name}={}", word(value))
}

/// A positional argument, behind `--` where it would be read as an option.
#[must_use]
pub fn argument(text: &str) -> String {
    if text.starts_with('-') { format!("-- {}", word(text)) } else { word(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_a_shell_would_read_something_else() {
        for plain in ["/var/lib/muster/ca.crt", "web-1", "a.b_c+d", "dG9rZW4=", "https://f:8220"] {
            assert_eq!(word(plain), plain);
        }
        for (text, quoted) in [
            ("", "''"),
            ("/a b/it's", r"'/a b/it'\''s'"),
            ("$(reboot)", "'$(reboot)'"),
            ("`id`", "'`id`'"),
            ("a;b", "'a;b'"),
            ("~", "'~'"),
            ("=ls", "'=ls'"),
            ("!!", "'!!'"),
            ("*", "'*'"),
            ("a\\b", "'a\\b'"),
            ("\u{1b}[2J", "'?[2J'"),
            ("a\nb", "'a?b'"),
        ] {
            assert_eq!(word(text), quoted);
        }
    }

    #[test]
    fn values_that_begin_with_a_hyphen_are_no_options() {
        assert_eq!(option("--policy", "-x"), "--policy=-x");
        assert_eq!(option("--policy", "Default policy"), "--policy='Default policy'");
        assert_eq!(argument("--all"), "-- --all");
        assert_eq!(argument("-a b"), "-- '-a b'");
        assert_eq!(argument("web-1"), "web-1");
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in ["", "-n", "it's", "$HOME `id` \"x\" \\", "a*?[b]", "über ✓", "#x", "a=b", "{a,b}"] {
            let script = format!("printf %s\\\\n -- {}", word(text));
            let output = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("--\n{text}\n"));
        }
    }
}
