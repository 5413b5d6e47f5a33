//! `Accept-Encoding`, parsed according to RFC 9110 §12.5.3 (D7): lists, several headers, weights and `*`.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

use muster_listen::receive::Coding;

/// Returns the coding that the client prefers: gzip, if it accepts that.
pub fn accepted(headers: &HeaderMap) -> Coding {
    if accepts_gzip(headers) { Coding::Gzip } else { Coding::Identity }
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let mut by_name = None;
    let mut by_star = None;
    for value in headers.get_all(ACCEPT_ENCODING) {
        // Fast path: this is what nearly every agent sends.
        if value == "gzip" {
            return true;
        }
        for member in value.to_str().unwrap_or_default().split(',') {
            match weighed(member) {
                ("*", takes) => by_star = Some(takes),
                (name, takes) if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => {
                    by_name = Some(takes);
                }
                _ => {}
            }
        }
    }
    // A named coding overrides `*`, wherever it stands in the list.
    by_name.or(by_star).unwrap_or(false)
}

/// Parses a list member: its name, and whether its weight is above zero. An invalid weight counts as zero.
fn weighed(member: &str) -> (&str, bool) {
    let mut parts = member.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    // `gzip;q=0` refuses gzip. Weights above zero are not ranked, because only one coding is offered.
    (name, weight.is_none_or(|q| q.parse::<f32>().is_ok_and(|q| q > 0.0)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn takes(values: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_static(value));
        }
        accepted(&headers) == Coding::Gzip
    }

    #[test]
    fn d7_lists_weights_and_wildcards_are_parsed() {
        for yes in
            [&["gzip"][..], &["deflate", "gzip"], &["gzip, deflate"], &["br;q=1.0, gzip;q=0.5"], &["*"], &["GZIP"]]
        {
            assert!(takes(yes), "{yes:?}");
        }
        for no in [
            &[][..],
            &[""],
            &["identity"],
            &["gzip;q=0"],
            &["gzip;q=0.000, *"],
            &["*;q=0"],
            &["gzipped"],
            &["gzip;q=x"],
        ] {
            assert!(!takes(no), "{no:?}");
        }
    }
}
