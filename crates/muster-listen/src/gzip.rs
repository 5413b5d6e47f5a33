//! Gzip with a maximum output size. Each thread reuses its state: a new inflater allocates 40 KiB per request, a new
//! deflater 300 KiB.

use std::cell::RefCell;

use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress, Status};

/// The header of our gzip members: deflate, no name, no time, fastest level (4), unknown system (255).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];
const TRAILER_BYTES: usize = 8;

/// Number of output buffers that a thread keeps for reuse, and the maximum size of one.
const BUFFERS_KEPT: usize = 4;
const BUFFER_BYTES: usize = 16 * 1024;

const HAS_CRC: u8 = 1 << 1;
const HAS_EXTRA: u8 = 1 << 2;
const HAS_NAME: u8 = 1 << 3;
const HAS_COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0xe0;

thread_local! {
    static INFLATER: RefCell<Decompress> = RefCell::new(Decompress::new(false));
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static DEFLATER: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
}

/// Why a body could not be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InflateError {
    /// The output exceeds the maximum. No memory beyond the maximum was allocated.
    TooLarge,
    /// The input is not gzip, is truncated, or fails its checksum.
    Malformed,
}

/// Inflates one or more gzip members into at most `cap` bytes.
pub fn inflate(input: &[u8], cap: usize) -> Result<Vec<u8>, InflateError> {
    let mut output = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    // A first guess from the received bytes. The trailer announces the size too, but it is untrusted.
    output.reserve(input.len().saturating_mul(4).clamp(1024, cap.saturating_add(1).max(1024)));
    let mut rest = input;
    loop {
        // A gzip stream may have several members (RFC 1952 §2.2).
        rest = INFLATER.with_borrow_mut(|state| inflate_member(state, rest, &mut output, cap))?;
        if rest.is_empty() {
            return Ok(output);
        }
    }
}

/// Takes back a buffer that [`inflate`] returned, so that the next body does not allocate one.
pub fn give_back(mut buffer: Vec<u8>) {
    // Large buffers are freed: after one burst of large bodies, every thread would keep megabytes.
    if (1..=BUFFER_BYTES).contains(&buffer.capacity()) {
        buffer.clear();
        BUFFERS.with_borrow_mut(|buffers| {
            if buffers.len() < BUFFERS_KEPT {
                buffers.push(buffer);
            }
        });
    }
}

fn inflate_member<'a>(
    state: &mut Decompress,
    input: &'a [u8],
    output: &mut Vec<u8>,
    cap: usize,
) -> Result<&'a [u8], InflateError> {
    let data = skip_header(input).ok_or(InflateError::Malformed)?;
    let start = output.len();
    // The state is shared by all requests of the thread, and may be in the middle of a body that failed.
    state.reset(false);
    let rest = inflate_data(state, data, output, cap)?;
    let (trailer, rest) = rest.split_at_checked(TRAILER_BYTES).ok_or(InflateError::Malformed)?;
    let mut crc = Crc::new();
    crc.update(&output[start..]);
    // The trailer has the CRC and the length modulo 2^32.
    let expected = [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].concat();
    if trailer == expected { Ok(rest) } else { Err(InflateError::Malformed) }
}

fn inflate_data<'a>(
    state: &mut Decompress,
    data: &'a [u8],
    output: &mut Vec<u8>,
    cap: usize,
) -> Result<&'a [u8], InflateError> {
    loop {
        make_room(output, cap)?;
        let rest = &data[consumed(state)..];
        // Writes into the spare capacity only, and never allocates, so that `make_room` bounds the memory.
        let status = state.decompress_vec(rest, output, FlushDecompress::None).map_err(|_| InflateError::Malformed)?;
        if output.len() > cap {
            return Err(InflateError::TooLarge);
        }
        match status {
            Status::StreamEnd => return Ok(&data[consumed(state)..]),
            // The inflater stopped with space left, so it wants input that there is none of: the stream is truncated.
            _ if output.len() < output.capacity() => return Err(InflateError::Malformed),
            _ => {}
        }
    }
}

fn consumed(state: &Decompress) -> usize {
    usize::try_from(state.total_in()).unwrap_or(usize::MAX)
}

/// Doubles the buffer, by 4 MiB at most, up to one byte above the maximum: the extra byte shows that the output is too
/// large.
fn make_room(output: &mut Vec<u8>, cap: usize) -> Result<(), InflateError> {
    if output.len() < output.capacity() {
        return Ok(());
    }
    let left = (cap + 1).checked_sub(output.len()).filter(|left| *left > 0).ok_or(InflateError::TooLarge)?;
    output.reserve_exact(output.len().clamp(1024, 4 << 20).min(left));
    Ok(())
}

/// Returns the input after a member's header, or `None` if the header is malformed.
fn skip_header(input: &[u8]) -> Option<&[u8]> {
    // RFC 1952 §2.3. Time, extra flags and system in the fixed part are ignored.
    let (fixed, mut rest) = input.split_at_checked(10)?;
    let flags = fixed[3];
    if !fixed.starts_with(&[0x1f, 0x8b, 8]) || flags & RESERVED != 0 {
        return None;
    }
    if flags & HAS_EXTRA != 0 {
        let (length, after) = rest.split_first_chunk::<2>()?;
        rest = after.get(usize::from(u16::from_le_bytes(*length))..)?;
    }
    for text in [HAS_NAME, HAS_COMMENT] {
        if flags & text != 0 {
            rest = &rest[rest.iter().position(|byte| *byte == 0)? + 1..];
        }
    }
    if flags & HAS_CRC != 0 { rest.get(2..) } else { Some(rest) }
}

/// Compresses `input` into one gzip member at the fastest level. Responses are compressed once per agent here, so CPU
/// time matters more than the ratio.
pub fn deflate(input: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(input.len() / 2 + 64);
    output.extend_from_slice(&HEADER);
    DEFLATER.with_borrow_mut(|state| deflate_data(state, input, &mut output));
    let mut crc = Crc::new();
    crc.update(input);
    output.extend_from_slice(&crc.sum().to_le_bytes());
    output.extend_from_slice(&crc.amount().to_le_bytes());
    output
}

fn deflate_data(state: &mut Compress, input: &[u8], output: &mut Vec<u8>) {
    state.reset();
    loop {
        let at = usize::try_from(state.total_in()).unwrap_or(usize::MAX);
        let status = state.compress_vec(&input[at..], output, FlushCompress::Finish);
        if matches!(status, Ok(Status::StreamEnd)) {
            return;
        }
        // Incompressible input needs more space than the first guess.
        output.reserve(input.len() / 2 + 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deflated_text_can_be_inflated() {
        for text in [&b""[..], b"x", &[7; 100_000], &(0..=255).collect::<Vec<u8>>()] {
            assert_eq!(inflate(&deflate(text), 100_000).as_deref(), Ok(text));
        }
    }

    #[test]
    fn several_members_are_concatenated() {
        let both = [deflate(b"one "), deflate(b"two")].concat();
        assert_eq!(inflate(&both, 100).as_deref(), Ok(&b"one two"[..]));
        assert_eq!(inflate(&both, 6), Err(InflateError::TooLarge));
    }

    #[test]
    fn ea49_the_maximum_is_exact_and_limits_the_allocation() {
        let bomb = deflate(&vec![0; 64 << 20]);
        assert_eq!(inflate(&bomb, 20 << 20), Err(InflateError::TooLarge));
        let thousand = deflate(&[1; 1000]);
        assert!(inflate(&thousand, 1000).is_ok_and(|output| output.len() == 1000 && output.capacity() <= 4096));
        assert_eq!(inflate(&thousand, 999), Err(InflateError::TooLarge));
    }

    #[test]
    fn optional_header_fields_are_skipped() {
        let plain = deflate(b"text");
        let mut fancy = HEADER.to_vec();
        fancy[3] = HAS_CRC | HAS_EXTRA | HAS_NAME | HAS_COMMENT;
        fancy.extend_from_slice(b"\x03\0abcname\0comment\0\0\0");
        fancy.extend_from_slice(&plain[10..]);
        assert_eq!(inflate(&fancy, 100).as_deref(), Ok(&b"text"[..]));
    }

    #[test]
    fn truncated_and_corrupt_input_is_refused() {
        let whole = deflate(b"a text that is long enough to be cut in several places, places, places");
        for end in 0..whole.len() {
            assert_eq!(inflate(&whole[..end], 1000), Err(InflateError::Malformed), "cut at {end}");
        }
        for at in whole.len() - TRAILER_BYTES..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert_eq!(inflate(&changed, 1000), Err(InflateError::Malformed), "changed at {at}");
        }
        assert_eq!(inflate(&[&whole[..], b"junk"].concat(), 1000), Err(InflateError::Malformed));
        assert_eq!(inflate(b"{\"status\":\"online\"}", 1000), Err(InflateError::Malformed));
    }
}
