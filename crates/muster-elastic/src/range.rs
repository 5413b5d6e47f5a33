//! `Range` on file delivery (EA §7.3, EA135): one range of bytes, or a reason why not.

/// Which part of a file is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
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
    /// Not `bytes=a-b`, `bytes=a-` or `bytes=-n`, or beyond the end.
    Unsatisfiable,
    /// More than one.
    Several,
}

impl Wanted {
    /// Reads the header's value for a file of `size` bytes.
    pub fn parse(header: Option<&str>, size: u64) -> Result<Self, BadRange> {
        let Some(header) = header else { return Ok(Self::Whole) };
        let ranges = header.trim().strip_prefix("bytes=").ok_or(BadRange::Unsatisfiable)?;
        let parts = ranges.split(',').map(|range| one(range.trim(), size)).collect::<Result<Vec<_>, _>>()?;
        match parts[..] {
            [(first, last)] => Ok(Self::Part { first, last }),
            // Whoever asks for more than there is gets all of it.
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
    let end = size.checked_sub(1).ok_or(BadRange::Unsatisfiable)?;
    let (first, last) = match (from.trim(), to.trim()) {
        ("", count) => (size.saturating_sub(number(count)?.max(1)), end),
        (first, "") => (number(first)?, end),
        (first, last) => (number(first)?, number(last)?),
    };
    if first > last || first > end || (from.trim().is_empty() && number(to.trim())? == 0) {
        return Err(BadRange::Unsatisfiable);
    }
    Ok((first, last.min(end)))
}

/// Digits only: `parse` alone would take a sign. More than a number holds is beyond every file's end.
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
    fn ea135_one_range_in_each_of_its_forms() {
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
    fn ea135_what_can_not_be_satisfied() {
        for bad in
            ["bytes=100-", "bytes=9-0", "bytes=a-b", "bytes=", "bytes=-", "bytes=-0", "items=0-1", "bytes=+1-2", "0-1"]
        {
            assert_eq!(Wanted::parse(Some(bad), 100), Err(BadRange::Unsatisfiable), "{bad}");
        }
        assert_eq!(Wanted::parse(Some("bytes=0-1,4-5"), 100), Err(BadRange::Several));
        assert_eq!(Wanted::parse(Some("bytes=0-0"), 0), Err(BadRange::Unsatisfiable));
    }
}
