//! Canonical forms of strings that people enter and agents interpret.
//!
//! A string must not be validated in parsed form and then sent as it was typed, because agents compare and fetch
//! exactly what they get. Each function returns the canonical form, or the reason why there is none.

use crate::credential::ApiKey;
use crate::error_chain::chain;

/// Maximum length of a version, bytes.
const VERSION_BYTES: usize = 128;
/// Maximum length of a URL, bytes.
const URL_BYTES: usize = 2048;
/// Maximum length of an input type, bytes.
const INPUT_TYPE_BYTES: usize = 256;
/// The suffix of builds between releases.
const SNAPSHOT: &str = "-SNAPSHOT";

/// Canonical form of a version: `9.5.2`, `9.6.0-SNAPSHOT` or `9.5.2+build202601`. A leading `v` and surrounding
/// whitespace are removed, and `-snapshot` is written in capitals, as agents compare it. Incomplete versions are rejected,
/// because their meaning would be a guess.
pub fn version(text: &str) -> Result<String, String> {
    let version = text.trim();
    let version = version.strip_prefix(['v', 'V']).unwrap_or(version);
    // A suffix can contain dots and hyphens of its own (`-rc.1`), so it is cut off first.
    let (core, suffix) = version.split_at(version.find(['-', '+']).unwrap_or(version.len()));
    let numbers: Vec<&str> = core.split('.').collect();
    let whole = numbers.len() == 3 && numbers.iter().all(|number| is_number(number)) && is_suffix(suffix);
    if !whole || version.len() > VERSION_BYTES {
        return Err(format!("{} is not a version like 9.5.2", quoted(text)));
    }
    Ok(match suffix.split_at_checked(SNAPSHOT.len()) {
        Some((name, build)) if name.eq_ignore_ascii_case(SNAPSHOT) => format!("{core}{SNAPSHOT}{build}"),
        _ => version.to_owned(),
    })
}

/// Returns whether a version names a snapshot.
pub fn is_snapshot(version: &str) -> bool {
    let suffix = version.find('-').and_then(|at| version.get(at..at + SNAPSHOT.len()));
    suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(SNAPSHOT))
}

/// Returns whether the string is a decimal number without leading zeros that fits into 32 bits.
fn is_number(text: &str) -> bool {
    text.parse::<u32>().is_ok_and(|number| number.to_string() == text)
}

/// Returns whether the string is empty, or a pre-release or build suffix as in semantic versions (semver.org, items 9, 10).
fn is_suffix(suffix: &str) -> bool {
    let (pre_release, build) = suffix.split_at(suffix.find('+').unwrap_or(suffix.len()));
    let is_identifier = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    // A number with leading zeros is allowed in a build only.
    let is_exact = |text: &str| text.len() == 1 || !text.starts_with('0') || !text.bytes().all(|b| b.is_ascii_digit());
    let mut before = pre_release.strip_prefix('-').into_iter().flat_map(|text| text.split('.'));
    let mut after = build.strip_prefix('+').into_iter().flat_map(|text| text.split('.'));
    before.all(|text| is_identifier(text) && is_exact(text)) && after.all(is_identifier)
}

/// Canonical form of a URL with one of these schemes and, except for `file`, a host. The scheme is converted to lower
/// case; surrounding whitespace is removed.
pub fn url(text: &str, schemes: &[&str]) -> Result<String, String> {
    let refused = |reason: &str| Err(format!("{} is not a URL: {reason}", quoted(text)));
    let url = text.trim();
    let Some((scheme, rest)) = url.split_once("://") else { return refused("it has no scheme") };
    let scheme = scheme.to_ascii_lowercase();
    if !schemes.contains(&scheme.as_str()) {
        return refused(&format!("its scheme must be {}", schemes.join(" or ")));
    }
    if url.len() > URL_BYTES {
        return refused(&format!("it is longer than {URL_BYTES} bytes"));
    }
    // RFC 3986 requires percent-encoding of these characters; agents may treat them in any way.
    if let Some(bad) = rest.chars().find(|c| !c.is_ascii_graphic() || "\"<>\\^`{|}".contains(*c)) {
        return refused(&format!("it contains {bad:?}"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // The last `@` ends the user info: a password can contain others.
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if scheme != "file" && !is_host(host) {
        return refused("its host or port is invalid");
    }
    Ok(format!("{scheme}://{rest}"))
}

/// Returns whether the string is a host name or address with an optional port.
pub(crate) fn is_host(host: &str) -> bool {
    // The colons of an IPv6 address are inside the brackets; only one after `]` separates a port.
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let named = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._%~".contains(&b)),
    };
    named && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|number| number > 0))
}

/// Canonical form of an enrollment token: without surrounding whitespace. The reason contains no part of the token.
pub fn token(text: &str) -> Result<String, String> {
    let token = text.trim();
    // Only its form is known: it belongs to another server, which alone can verify it.
    ApiKey::parse(token).map(|_| token.to_owned()).map_err(|error| chain(&error).to_string())
}

/// Canonical form of an input type: `osquery`, `endpoint`.
pub fn input_type(text: &str) -> Result<String, String> {
    let kind = text.trim();
    let fits =
        kind.len() <= INPUT_TYPE_BYTES && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    if fits { Ok(kind.to_owned()) } else { Err(format!("{} is not the type of an input", quoted(text))) }
}

/// Quotes a value for an error, truncated so that it can't flood the log.
fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(80).collect();
    format!("{cut:?}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::version::Version;

    #[test]
    fn versions_have_a_canonical_form() {
        for (given, sent) in [
            ("9.5.0", "9.5.0"),
            ("v9.5.0", "9.5.0"),
            (" 9.5.0\n", "9.5.0"),
            ("V9.6.0-SNAPSHOT", "9.6.0-SNAPSHOT"),
            ("9.5.2+build202601", "9.5.2+build202601"),
            ("9.0.0-rc.1+build2", "9.0.0-rc.1+build2"),
            ("9.6.0-snapshot", "9.6.0-SNAPSHOT"),
            ("9.6.0-Snapshot+build007", "9.6.0-SNAPSHOT+build007"),
            ("9.5.0-0", "9.5.0-0"),
        ] {
            assert_eq!(version(given).as_deref(), Ok(sent), "{given:?}");
        }
    }

    #[test]
    fn incomplete_versions_are_rejected_with_their_value() {
        for bad in [
            "9.5",
            "9",
            "09.5.0",
            "9.5.0-01",
            "9.5.0-rc.007",
            "9.5.0+a+b",
            "9.05.0",
            "9.5.0.1",
            "9.5.0-",
            "9.5.0+",
            "9.5.0- x",
            "9. 5.0",
            "",
            "vv9.5.0",
            "+9.5.0",
            "99999999999.0.0",
            "9.5.0;rm",
            "9.5.0\u{a0}1",
        ] {
            assert!(version(bad).unwrap_err().contains(&format!("{bad:?}")), "{bad:?}");
        }
    }

    #[test]
    fn urls_have_a_canonical_form_or_are_rejected() {
        let web = |text: &str| url(text, &["https", "http", "file"]);
        for (given, sent) in [
            (" HTTPS://mirror.example/x/\n", "https://mirror.example/x/"),
            ("http://10.0.0.1:8080", "http://10.0.0.1:8080"),
            ("https://[::1]:8220/a?b=c", "https://[::1]:8220/a?b=c"),
            ("https://user:pass@mirror.example/", "https://user:pass@mirror.example/"),
            ("file:///srv/packages", "file:///srv/packages"),
        ] {
            assert_eq!(web(given).as_deref(), Ok(sent));
        }
        for bad in [
            "mirror.example",
            "ftp://x",
            "https://",
            "https:///x",
            "https://a b",
            "https://x/\u{202e}y",
            "https://x:0",
            "https://x:99999",
            "https://[::1",
            "https://x/<y>",
            "javascript:alert(1)",
        ] {
            assert!(web(bad).is_err(), "{bad}");
        }
        assert!(web(&format!("https://x/{}", "y".repeat(3000))).is_err());
    }

    #[test]
    fn tokens_are_trimmed_and_never_repeated_in_errors() {
        assert_eq!(token("aWQ6c2VjcmV0\n").as_deref(), Ok("aWQ6c2VjcmV0"));
        for bad in ["", "\"aWQ6c2VjcmV0\"", "hunter2!", "aWQ"] {
            let reason = token(bad).unwrap_err();
            assert!(bad.is_empty() || !reason.contains(bad), "{reason}");
        }
    }

    proptest! {
        #[test]
        fn canonicalization_of_versions_is_idempotent(text in "[ v0-9.+-]{0,12}[a-z]{0,3} ?") {
            if let Ok(canonical) = version(&text) {
                prop_assert_eq!(version(&canonical), Ok(canonical.clone()));
                prop_assert!(Version::parse(&canonical).is_some());
            }
        }

        #[test]
        fn any_text_is_handled_without_a_panic(text in any::<String>()) {
            let _ = (version(&text), url(&text, &["https"]), token(&text), input_type(&text));
        }
    }
}
