//! Questions on the terminal.

use std::io::{IsTerminal as _, Write as _};

/// Maximum length of an answer, in bytes.
const ANSWER_MAX: usize = 4096;

/// Returns whether somebody can answer.
pub fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks for a text; `None` at the end of the input.
pub fn ask(question: &str) -> Option<String> {
    eprint!("{question} ");
    let _ = std::io::stderr().flush();
    line().map(|line| line.trim().to_owned())
}

/// Asks for a decision. An empty answer means `default`, and any answer other than yes means no.
pub fn confirm(question: &str, default: bool) -> Option<bool> {
    let choices = if default { "[Y/n]" } else { "[y/N]" };
    let answer = ask(&format!("{question} {choices}"))?.to_lowercase();
    Some(if answer.is_empty() { default } else { matches!(answer.as_str(), "y" | "yes") })
}

/// Reads a line from standard input, and nothing behind it, which belongs to the next prompt or program (AG156). `None` at the
/// end of the input.
fn line() -> Option<String> {
    let (stdin, mut line) = (std::io::stdin(), Vec::new());
    while line.last() != Some(&b'\n') && line.len() < ANSWER_MAX {
        let mut byte = [0];
        match nix::unistd::read(&stdin, &mut byte) {
            Ok(1) => line.push(byte[0]),
            Err(nix::errno::Errno::EINTR) => {}
            _ => break,
        }
    }
    (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned())
}
