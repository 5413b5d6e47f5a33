//! `Range` on file delivery (EA §7.3, EA135): a single range of bytes.

/// The requested part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The whole file.
    Whole,
    /// Bytes `first..=last`.
    Part {
        /// The first byte.
        first: u64,
        /// The last byte, within the file.
        last: u64,
    },
}

/// Why a range can't be satisfied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRange {
    /// It is not `bytes=a-b`, `bytes=a-` or `bytes=-n`, or begins beyond the end.
    Unsatisfiable,
    /// There is more than one range.
    Several,
}

impl Wanted {
    /// Parses the header's value for a file of `size` bytes.
    pub fn parse(header: Option<&str>, size: u64) -> Result<Self, BadRange> {
        let Some(header) = header else { return Ok(Self::Whole) };
        let ranges = header.trim().strip_prefix("bytes=").ok_or(BadRange::Unsatisfiable)?;
        // The length of the header bounds the number of parts.
        let parts = ranges.split(',').map(|range| one(range.trim(), size)).collect::<Result<Vec<_>, _>>()?;
        match parts[..] {
            [(first, last)] => Ok(Self::Part { first, last }),
            // Overlapping ranges that add up to more than the file would only amplify the transfer (RFC 9110 §14.2).
            _ if total(&parts) > size => Ok(Self::Whole),
            _ => Err(BadRange::Several),
        }
    }
}

fn total(parts: &[(u64, u64)]) -> u64 {
    parts.iter().fold(0, |sum: u64, (first, last)| sum.saturating_add(last - first + 1))
}

fn one(range: &str, size: u64) -> Result<(u64, u64), BadRange> {
    let (from, to) = range.split_once('-').ok_or(BadRange::Unsatisfiable)?;
    // No range of an empty file can be satisfied.
    let end = size.checked_sub(1).ok_or(BadRange::Unsatisfiable)?;
    let (first, last) = match (from.trim(), to.trim()) {
        // `-n` is the last n bytes; more than the file has means all of it.
        ("", count) => (size.saturating_sub(number(count)?.max(1)), end),
        (first, "") => (number(first)?, end),
        (first, last) => (number(first)?, number(last)?),
    };
    if first > last || first > end || (from.trim().is_empty() && number(to.trim())? == 0) {
        return Err(BadRange::Unsatisfiable);
    }
    Ok((first, last.min(end)))
}

/// Parses a number of digits only; `parse` alone accepts a sign. A number that overflows is beyond every file's end.
fn number(text: &str) -> Result<u64, BadRange> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadRange::Unsatisfiable);
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(first: u64, last: u64) -> Result<Wanted, BadRange> {
        Ok(Wanted::Part { first, last })
    }

    #[test]
    fn ea135_every_form_of_a_single_range_is_parsed() {
        let of = |header| Wanted::parse(Some(header), 100);
        assert_eq!(Wanted::parse(None, 100), Ok(Wanted::Whole));
        assert_eq!(of("bytes=0-9"), part(0, 9));
        assert_eq!(of("bytes=90-"), part(90, 99));
        assert_eq!(of("bytes=-10"), part(90, 99));
        assert_eq!(of("bytes=-1000"), part(0, 99));
        assert_eq!(of("bytes=0-99999999999999999999999"), part(0, 99));
        assert_eq!(of("bytes=0-80,10-99"), Ok(Wanted::Whole));
    }

    #[test]
    fn ea135_malformed_and_multiple_ranges_are_refused() {
        for bad in
            ["bytes=100-", "bytes=9-0", "bytes=a-b", "bytes=", "bytes=-", "bytes=-0", "items=0-1", "bytes=+1-2", "0-1"]
        {
            assert_eq!(Wanted::parse(Some(bad), 100), Err(BadRange::Unsatisfiable), "{bad}");
        }
        assert_eq!(Wanted::parse(Some("bytes=0-1,4-5"), 100), Err(BadRange::Several));
        assert_eq!(Wanted::parse(Some("bytes=0-0"), 0), Err(BadRange::Unsatisfiable));
    }
}
