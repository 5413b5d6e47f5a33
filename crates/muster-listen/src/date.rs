//! The `Date` header, formatted once per second and thread.

use std::cell::RefCell;

/// A Unix time in seconds, and its formatted date.
type Formatted = (i64, String);

thread_local! {
    static LAST: RefCell<Formatted> = const { RefCell::new((0, String::new())) };
}

/// Appends the current date in HTTP's format (RFC 9110 §5.6.7).
pub(super) fn write_date(out: &mut Vec<u8>) {
    // Formatting the date would cost more than the rest of the head of a small response.
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
    fn the_date_has_the_imf_fixdate_format() {
        assert_eq!(format(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        let mut out = Vec::new();
        write_date(&mut out);
        write_date(&mut out);
        assert_eq!((out.len(), &out[..29]), (58, &out[29..]));
    }
}
