//! The `Date` header, made once a second.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

/// A second since 1970 and its date.
type Made = (u64, String);

thread_local! {
    static LAST: RefCell<Made> = const { RefCell::new((0, String::new())) };
}

/// Appends the date of now, as HTTP writes it (RFC 9110 §5.6.7).
pub(super) fn write_date(out: &mut Vec<u8>) {
    let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(made, date)| {
        if *made != second || date.is_empty() {
            (*made, *date) = (second, format(second));
        }
        out.extend_from_slice(date.as_bytes());
    });
}

fn format(second: u64) -> String {
    let time = i64::try_from(second).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
    time.unwrap_or_default().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_http_wants_it() {
        assert_eq!(format(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        let mut out = Vec::new();
        write_date(&mut out);
        write_date(&mut out);
        assert_eq!((out.len(), &out[..29]), (58, &out[29..]));
    }
}
