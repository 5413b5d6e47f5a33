//! Names of certificates in error messages.

use std::borrow::Cow;

/// How rustls prints the names of a certificate, which it has from a library that has only debug output for them.
const PRINTED: [(&str, &str); 3] =
    [("DnsName(\"", "\")"), ("IpAddress(", ")"), ("UniformResourceIdentifier(\"", "\")")];

/// Replaces names such as `DnsName("fleet.example")` and `IpAddress(127.0.0.1)` by the names themselves.
pub fn plain(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for (before, after) in PRINTED {
        let mut from = 0;
        while let Some(start) = text[from..].find(before).map(|at| from + at) {
            let name = start + before.len();
            let Some(length) = text[name..].find(after) else { break };
            let end = name + length;
            text = format!("{}{}{}", &text[..start], &text[name..end], &text[end + after.len()..]).into();
            // Behind the name, so that nothing in it is replaced again.
            from = start + length;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_printed_without_their_types() {
        let text = "certificate not valid for name \"b\"; certificate is only valid for DnsName(\"a.example\"), \
                    IpAddress(127.0.0.1) or IpAddress(::1)";
        let wanted = "certificate not valid for name \"b\"; certificate is only valid for a.example, 127.0.0.1 or ::1";
        assert_eq!(plain(text), wanted);
        for other in ["", "no names (at all)", "IpAddress(", "DnsName(\"a"] {
            assert_eq!(plain(other), other);
        }
    }
}
