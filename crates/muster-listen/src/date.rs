//! The `Date` header, made once a second.

use std::cell::RefCell;

/// A second since 1970 and its date.
type Made = (i64, String);

thread_local! {
    static LAST: RefCell<Made> = const { RefCell::new((0, String::new())) };
}

/// Appends the date of now, as HTTP writes it (RFC 9110 §5.6.7).
pub(super) fn write_date(out: &mut Vec<u8>) {
    let second = jiff::Timestamp::now().as_second();
    LAST.with_borrow_mut(|(made, date)| {
        if *made != second || date.is_empty() {
            (*made, *date) = (second, format(second));
        }
        out.extend_from_slice(date.as_bytes());
    });
}

fn format(second: i64) -> String {
    jiff::Timestamp::from_second(second).unwrap_or_default().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
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
