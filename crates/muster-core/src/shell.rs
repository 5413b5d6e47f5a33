//! Quoting for commands that are printed for people to paste: a name must reach the program as one word, and never as
//! an option. Names can come from agents, so this is a security boundary.

/// Quotes a word for a POSIX shell, if necessary. Control characters are replaced by `?`, because a terminal would
/// interpret them.
#[must_use]
pub fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@,%=".contains(c);
    // zsh expands a word with a leading `=` to the path of the command of that name.
    if !text.is_empty() && !text.starts_with('=') && text.chars().all(is_plain) {
        return text.to_owned();
    }
    let printable: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    // Single quotes have no escapes: close them, add an escaped quote, open them again.
    format!("'{}'", printable.replace('\'', r"'\''"))
}

/// Formats an option as one word, `--name=VALUE`, so that a value that begins with `-` is not parsed as an option.
#[must_use]
pub fn option(name: &str, value: &str) -> String {
    format!("{name}={}", word(value))
}

/// Formats a positional argument, after `--` if it would be parsed as an option.
#[must_use]
pub fn argument(text: &str) -> String {
    if text.starts_with('-') { format!("-- {}", word(text)) } else { word(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_if_a_shell_would_change_them() {
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
    fn values_that_begin_with_a_hyphen_are_not_options() {
        assert_eq!(option("--policy", "-x"), "--policy=-x");
        assert_eq!(option("--policy", "Default policy"), "--policy='Default policy'");
        assert_eq!(argument("--all"), "-- --all");
        assert_eq!(argument("-a b"), "-- '-a b'");
        assert_eq!(argument("web-1"), "web-1");
    }

    #[test]
    fn quoted_words_survive_a_shell() {
        for text in ["", "-n", "it's", "$HOME `id` \"x\" \\", "a*?[b]", "über ✓", "#x", "a=b", "{a,b}"] {
            let script = format!("printf %s\\\\n -- {}", word(text));
            let output = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("--\n{text}\n"));
        }
    }
}
