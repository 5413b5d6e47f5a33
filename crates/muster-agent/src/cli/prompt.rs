//! Questions on the terminal.

use std::io::{IsTerminal as _, Stdin, Write as _};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

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

/// Asks for a text that must not appear on the terminal, nor in a recording of it; `None` at the end of the input.
pub fn ask_hidden(question: &str) -> Option<String> {
    // Before the question, so that an answer that is pasted at once is not displayed either.
    let silent = Silent::start();
    let answer = ask(question);
    drop(silent);
    // The line end of the answer was not displayed.
    eprintln!();
    answer
}

/// A terminal that does not display what is typed, until it is dropped.
struct Silent {
    stdin: Stdin,
    former: Termios,
}

impl Silent {
    /// Returns `None` if standard input is not a terminal.
    fn start() -> Option<Self> {
        let stdin = std::io::stdin();
        let former = tcgetattr(&stdin).ok()?;
        let mut silent = former.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        // Not TCSAFLUSH, which would discard what was typed ahead.
        tcsetattr(&stdin, SetArg::TCSADRAIN, &silent).ok()?;
        Some(Self { stdin, former })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.stdin, SetArg::TCSADRAIN, &self.former);
    }
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
