//! Log lines: text or JSON on stderr, one event per line, even if a client sends control characters.

use std::io::{self, Write};
use std::time::Duration;

use muster_core::error_chain::SharedError;
use muster_log::LineQueue;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The log of the process.
#[derive(Debug)]
pub struct Log(LineQueue);

impl Log {
    /// Waits until all lines are written, or for a second if whatever reads them stands still.
    pub fn flush(&self) {
        self.0.flush(Duration::from_secs(1));
    }
}

/// Starts logging for the process. Returns an error if it was already started.
pub fn start(json: bool, level: &str) -> Result<Log, SharedError> {
    let filter = EnvFilter::try_new(directives(level))?;
    let queue = LineQueue::start(io::stderr())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .log_internal_errors(false)
        .with_writer(Lines(queue.clone()));
    let started =
        if json { builder.json().flatten_event(true).try_init() } else { builder.with_target(false).try_init() };
    started.map_err(SharedError::from).map(|()| Log(queue))
}

/// Returns the filter. Libraries that process complete requests log warnings only, because at lower levels they can log
/// credentials.
fn directives(level: &str) -> String {
    match level {
        "error" => level.to_owned(),
        level => format!("{level},hyper=warn,hyper_util=warn,rustls=warn,tokio_rustls=warn,axum=warn,tower=warn"),
    }
}

/// Creates writers of single lines. Each formatted event is written in one piece.
#[derive(Clone, Copy, Debug)]
pub struct Lines<M>(pub M);

/// Writer of one event.
#[derive(Debug)]
pub struct Line<W>(W);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Lines<M> {
    type Writer = Line<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self.0.make_writer())
    }
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        // A line that cannot be written is lost: its reader is gone, or the disk is full. The library would report the
        // error on the same stream, and end the task that logs with a panic.
        let _ = self.0.write_all(&escaped(event));
        // The length of the input is returned, not that of the escaped text: a caller would otherwise write the rest
        // again.
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Escapes control characters (except the final line break) as `\xNN`, and characters that are invisible or change the
/// direction of the text as `\u{NNNN}`. Input from a client must not move the cursor of a terminal, forge a line, or
/// make a line look different from its content.
fn escaped(event: &[u8]) -> Vec<u8> {
    let (text, end) = match event.strip_suffix(b"\n") {
        Some(text) => (text, "\n"),
        None => (event, ""),
    };
    let mut line = Vec::with_capacity(event.len());
    for c in String::from_utf8_lossy(text).chars() {
        if c.is_control() {
            line.extend_from_slice(format!("\\x{:02x}", u32::from(c)).as_bytes());
        } else if deceives(c) {
            line.extend_from_slice(format!("\\u{{{:x}}}", u32::from(c)).as_bytes());
        } else {
            line.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    line.extend_from_slice(end.as_bytes());
    line
}

/// Returns whether a character is invisible and changes how others are displayed: direction marks, joiners, line
/// separators, fillers, variation selectors and tags.
fn deceives(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_level_of_the_configuration_is_a_filter() {
        for level in ["error", "warn", "info", "debug", "trace"] {
            let filter = EnvFilter::try_new(directives(level)).unwrap().to_string();
            assert!(filter.contains(level), "{filter}");
            assert!(level == "error" || filter.contains("hyper=warn"), "{filter}");
        }
    }

    #[test]
    fn deceptive_characters_are_escaped_and_others_are_not() {
        let written = |text: &str| String::from_utf8(escaped(text.as_bytes())).unwrap();
        assert_eq!(written("host=\u{202e}gnp.exe"), "host=\\u{202e}gnp.exe");
        for c in ['\u{200b}', '\u{200f}', '\u{2028}', '\u{2066}', '\u{feff}', '\u{ad}', '\u{e0041}'] {
            assert_eq!(written(&c.to_string()), format!("\\u{{{:x}}}", u32::from(c)));
        }
        for text in ["Grüße", "日本語", "عربي", "🦀", "a b"] {
            assert_eq!(written(text), text);
        }
    }

    #[test]
    fn d23_control_characters_of_clients_are_escaped() {
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(Lines(move || writer.clone())).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(path = %"/a\u{1b}[31m\r\nforged line\u{9b}", "a request came");
        });
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(text.ends_with('\n') && !text.contains(['\u{1b}', '\r', '\u{9b}']), "{text:?}");
        assert!(text.contains("forged line"), "{text:?}");
    }
}
