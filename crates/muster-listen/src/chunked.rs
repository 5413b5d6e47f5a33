//! Decoder for chunked bodies (RFC 9112 §7.1). It consumes chunk sizes and trailers, and returns data when it arrives.

use bytes::{Buf, Bytes, BytesMut};

/// Maximum length of a chunk-size line in bytes, including extensions. Extensions are unusual, but a line without a
/// limit would be buffered until its end.
const MAX_SIZE_LINE: usize = 256;
/// Maximum total length of trailers in bytes. Trailers are discarded.
const MAX_TRAILERS: usize = 4096;
/// Maximum size of a chunk in bytes. Larger sizes are mistakes or attempts to cause an integer overflow.
const MAX_CHUNK: u64 = 1 << 30;

/// The chunked framing is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadChunk(&'static str);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers(usize),
    Done,
}

/// The decoder's state.
#[derive(Debug)]
pub(super) struct Chunked(State);

/// What the decoder found in the buffered bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A piece of the body.
    Data(Bytes),
    /// The decoder needs more input.
    More,
    /// The body is complete.
    End,
}

impl Chunked {
    /// Creates a decoder that expects the first chunk's size.
    pub fn new() -> Self {
        Self(State::Size)
    }

    /// Returns the number of bytes that are missing from the current chunk.
    pub fn left(&self) -> u64 {
        if let State::Data(left) = self.0 { left } else { 0 }
    }

    /// Consumes bytes from the front of `input` up to the next piece of data, or as far as possible.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Step, BadChunk> {
        loop {
            match self.0 {
                State::Size => match size(input)? {
                    None => return Ok(Step::More),
                    // The last chunk has no data, and no line end of its own after it.
                    Some(0) => self.0 = State::Trailers(0),
                    Some(size) => self.0 = State::Data(size),
                },
                State::Data(_) if input.is_empty() => return Ok(Step::More),
                // Data is passed on before the chunk is complete, because a chunk can be a gigabyte long.
                State::Data(left) => {
                    let part = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let left = left - part as u64;
                    self.0 = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Step::Data(input.split_to(part).freeze()));
                }
                State::DataEnd => match input.get(..2) {
                    // Two bytes are needed to tell a line end from excess data.
                    None => return Ok(Step::More),
                    Some(b"\r\n") => {
                        input.advance(2);
                        self.0 = State::Size;
                    }
                    Some(_) => return Err(BadChunk("a chunk exceeds its declared size")),
                },
                State::Trailers(seen) => match trailer(input, seen)? {
                    None => return Ok(Step::More),
                    Some(0) => self.0 = State::Done,
                    Some(length) => self.0 = State::Trailers(seen + length),
                },
                State::Done => return Ok(Step::End),
            }
        }
    }
}

/// Reads the size line of the next chunk; `None` when it is incomplete.
fn size(input: &mut BytesMut) -> Result<Option<u64>, BadChunk> {
    // httparse interprets a line without a digit as size zero, which would end the body early.
    if input.first().is_some_and(|first| !first.is_ascii_hexdigit()) {
        return Err(BadChunk("a chunk has no size"));
    }
    match httparse::parse_chunk_size(input) {
        // httparse skips extensions without checking them. Some proxies treat a bare LF in an extension as the end of
        // the line, and would interpret the rest as another request (request smuggling).
        Ok(httparse::Status::Complete((line, _))) if has_control(&input[..line - 2]) => {
            Err(BadChunk("a chunk's extension contains a control character"))
        }
        Ok(httparse::Status::Complete((line, size))) if line <= MAX_SIZE_LINE && size <= MAX_CHUNK => {
            input.advance(line);
            Ok(Some(size))
        }
        Ok(httparse::Status::Partial) if input.len() <= MAX_SIZE_LINE => Ok(None),
        Ok(_) => Err(BadChunk("a chunk's size is out of bounds")),
        Err(_) => Err(BadChunk("a chunk's size is not a hexadecimal number")),
    }
}

fn has_control(line: &[u8]) -> bool {
    line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t')
}

/// Discards the next trailer line. Returns its length, 0 for the empty line that ends the body, `None` when the line is
/// incomplete.
fn trailer(input: &mut BytesMut, seen: usize) -> Result<Option<usize>, BadChunk> {
    let end = input.iter().position(|byte| *byte == b'\n');
    // Counted over all trailers, because each line could be just below the limit.
    if seen + end.unwrap_or(input.len()) > MAX_TRAILERS {
        return Err(BadChunk("the trailers are too long"));
    }
    let Some(end) = end else { return Ok(None) };
    let line = input.split_to(end + 1);
    // Trailers are checked although they are discarded, because a proxy may interpret them differently.
    match line.strip_suffix(b"\r\n") {
        Some(b"") => Ok(Some(0)),
        Some(text) if text.contains(&b':') && !text.starts_with(b":") && !has_control(text) => Ok(Some(line.len())),
        _ => Err(BadChunk("a trailer is not a header line")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes a body whose bytes arrive `step` at a time; returns the data and whether the body was complete.
    fn decode(text: &[u8], step: usize) -> Result<(Vec<u8>, bool), BadChunk> {
        let (mut chunked, mut input, mut body) = (Chunked::new(), BytesMut::new(), Vec::new());
        for part in text.chunks(step) {
            input.extend_from_slice(part);
            loop {
                match chunked.next(&mut input)? {
                    Step::Data(data) => body.extend_from_slice(&data),
                    Step::More => break,
                    Step::End => return Ok((body, true)),
                }
            }
        }
        Ok((body, false))
    }

    #[test]
    fn chunks_are_decoded_for_every_split_of_the_bytes() {
        let text = b"3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n";
        for step in [1, 2, 3, 5, 7, 1000] {
            assert_eq!(decode(text, step).unwrap(), (b"abc0123456789".to_vec(), true), "step {step}");
        }
        assert_eq!(decode(&text[..20], 1000).unwrap(), (b"abc012".to_vec(), false));
    }

    #[test]
    fn malformed_chunks_are_rejected() {
        let (long, trailers) = (format!("1;{}\r\n", "x".repeat(300)), format!("0\r\n{}", "a: b\r\n".repeat(800)));
        for text in [
            "x\r\n",
            "-1\r\n",
            "3;a\nb\r\nabc\r\n",
            "3;a\0b\r\nabc\r\n",
            "\r\n\r\n",
            ";x\r\n\r\n",
            "3\r\nabc\r\n\r\n\r\n",
            "0\r\n \r\n",
            "0\r\n\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\na: b\0\r\n\r\n",
            "3\r\nabcd\r\n",
            "3\nabc\r\n",
            "FFFFFFFFFFFFFFFFF\r\n",
            "7fffffff\r\n",
            &long,
            &trailers,
        ] {
            for step in [1, 1000] {
                assert!(decode(text.as_bytes(), step).is_err(), "{text:?} by {step}");
            }
        }
    }

    #[test]
    fn left_is_the_remainder_of_the_current_chunk() {
        let (mut chunked, mut input) = (Chunked::new(), BytesMut::from("ff\r\nabc"));
        assert_eq!(chunked.next(&mut input).unwrap(), Step::Data("abc".into()));
        assert_eq!(chunked.left(), 252);
    }
}
