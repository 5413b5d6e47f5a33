//! Secrets inside a longer string: URLs, addresses of databases, headers, and assignments such as `password=…`, also in
//! embedded YAML and JSON.
//!
//! Only the characters of the secret are replaced, so agents get exactly the string that was written. A wrong guess
//! therefore does no harm beyond a reference that nobody needed.

use std::ops::Range;

use crate::secret_refs::OPEN;
use crate::yaml;

/// Names of fields and parameters with secrets, in lower case and with `_` for `-`.
const NAMES: [&str; 20] = [
    "access_key",
    "accountkey",
    "apikey",
    "api_key",
    "authorization",
    "bearer",
    "cookie",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "proxy_authorization",
    "pwd",
    "secret",
    "secret_key",
    "secretkey",
    "sharedaccesskey",
    "sharedaccesssignature",
    "token",
    "x_api_key",
];
/// Ends of such names.
const ENDS: [&str; 9] =
    ["password", "_passwd", "_pwd", "_passphrase", "_secret", "_token", "_api_key", "_access_key", "_secret_key"];
/// Further names of parameters with secrets in the query of a URL.
const IN_QUERIES: [&str; 6] = ["auth", "code", "key", "pass", "sig", "signature"];
/// Words before a colon that are no users: schemes of URIs without `//`.
const SCHEMES: [&str; 7] = ["acct", "data", "mailto", "sip", "sips", "urn", "xmpp"];
/// Values that are no secrets.
const LITERALS: [&str; 4] = ["null", "true", "false", "~"];
/// Starts of variables and templates, which agents replace, and of values that are on the following lines.
const NOT_PLAIN: [&str; 4] = ["${", "[[", "{{", OPEN];
/// Minimum length of a token after `Bearer` or `Basic` that is not taken for a word.
const LEAST_TOKEN: usize = 8;

/// Returns the places of the secrets in a string, in order. `path` is the path of the field.
pub(super) fn places(text: &str, path: &str) -> Vec<Range<usize>> {
    let mut found = url_credentials(text);
    found.extend(address_passwords(text));
    found.extend(token_after_scheme(text));
    found.extend(assigned(text, is_header_list(path)));
    found.retain(|place| is_plain(&text[place.clone()]));
    found.sort_by_key(|place| (place.start, place.end));
    // Of places that overlap, the first one counts.
    let mut end = 0;
    found.retain(|place| {
        let is_next = place.start >= end;
        end = if is_next { place.end } else { end };
        is_next
    });
    found
}

fn is_plain(value: &str) -> bool {
    !value.is_empty() && !NOT_PLAIN.iter().any(|start| value.contains(start)) && !LITERALS.contains(&value)
}

/// Returns whether the field is a list of headers, each `Name: value`.
fn is_header_list(path: &str) -> bool {
    let list = path.rsplit_once('.').filter(|(_, index)| index.parse::<usize>().is_ok()).map_or(path, |(list, _)| list);
    list.to_ascii_lowercase().ends_with("headers")
}

/// Returns the passwords in all URLs `SCHEME://USER:PASSWORD@HOST`, and tokens in place of a user in `https://TOKEN@HOST`.
fn url_credentials(text: &str) -> Vec<Range<usize>> {
    // What can't be in the authority of a URL, and so ends it where the URL is part of a longer text.
    let ends = |c: char| c.is_whitespace() || c.is_control() || "/?#\"'`<>\\".contains(c);
    let credential = |(scheme_end, separator): (usize, &str)| {
        let start = scheme_end + separator.len();
        let authority = text[start..].split(ends).next()?;
        // The last one, because a password can contain others.
        let (user_info, _) = authority.rsplit_once('@')?;
        match user_info.split_once(':') {
            Some((user, _)) => Some(start + user.len() + 1..start + user_info.len()),
            None if is_http(&text[..scheme_end]) => Some(start..start + user_info.len()),
            None => None,
        }
    };
    text.match_indices("://").filter_map(credential).collect()
}

fn is_http(before: &str) -> bool {
    let before = before.as_bytes();
    [&b"http"[..], b"https"].iter().any(|scheme| {
        let start = before.len().checked_sub(scheme.len());
        start.and_then(|start| before.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(scheme))
    })
}

/// Returns the passwords in addresses without a scheme: `USER:PASSWORD@tcp(HOST:3306)/` of MySQL anywhere, and
/// `USER:PASSWORD@HOST:PORT`, also several with commas between them, if there is nothing else in the string.
fn address_passwords(text: &str) -> Vec<Range<usize>> {
    let is_list = !text.contains("://") && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    let separates = |c: char| if is_list { c == ',' } else { c.is_whitespace() || "\"'`".contains(c) };
    let mut start = 0;
    let mut found = Vec::new();
    for part in text.split_inclusive(separates) {
        let word = part.trim_end_matches(separates);
        found.extend(address_password(word, is_list).map(|place| start + place.start..start + place.end));
        start += part.len();
    }
    found
}

fn address_password(word: &str, is_whole: bool) -> Option<Range<usize>> {
    let of_driver = ["@tcp(", "@unix(", "@udp("].iter().find_map(|driver| word.find(driver));
    let at = of_driver.or_else(|| word.rfind('@').filter(|_| is_whole))?;
    let user = word[..at].split(':').next()?;
    let host = &word[at + 1..];
    let is_user = |c: char| c.is_ascii_alphanumeric() || "_.-+%\\".contains(c);
    let is_host = host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') && !host.starts_with("sha256:");
    let is_address = user.len() < at && user.chars().all(is_user) && is_host;
    (is_address && !SCHEMES.contains(&user.to_ascii_lowercase().as_str())).then(|| user.len() + 1..at)
}

/// Returns the token of a string that is `Bearer TOKEN` or `Basic TOKEN`.
fn token_after_scheme(text: &str) -> Option<Range<usize>> {
    let (scheme, token) = text.split_once(' ')?;
    let is_scheme = ["bearer", "basic", "apikey"].contains(&scheme.to_ascii_lowercase().as_str());
    let is_token = token.len() >= LEAST_TOKEN && !token.contains(char::is_whitespace);
    (is_scheme && is_token).then(|| scheme.len() + 1..text.len())
}

/// Returns the values that are assigned to names of secrets: `name=value`, `name: value`, `"name": "value"`.
fn assigned(text: &str, in_headers: bool) -> Vec<Range<usize>> {
    let separators = text.match_indices([':', '=']);
    separators.filter_map(|(at, separator)| assignment(text, at, separator == "=", in_headers)).collect()
}

fn assignment(text: &str, at: usize, is_equals: bool, in_headers: bool) -> Option<Range<usize>> {
    let before = text[..at].trim_end_matches([' ', '\t']);
    let unquoted = before.strip_suffix(['"', '\'']).unwrap_or(before);
    let named = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let name = &unquoted[unquoted.trim_end_matches(named).len()..];
    let in_query = unquoted[..unquoted.len() - name.len()].ends_with(['?', '&']);
    if !(is_name(name, in_query) || in_headers && yaml::is_secret_header(name)) {
        return None;
    }
    let after = &text[at + 1..];
    let value = after.trim_start_matches([' ', '\t']);
    let start = text.len() - value.len();
    let is_spaced = value.len() < after.len() || before.len() < at;
    if let Some(quote) = value.chars().next().filter(|c| "\"'`".contains(*c)) {
        let length = value[1..].find([quote, '\n'])?;
        let inner = &value[1..=length];
        // Otherwise it is the end of one string of a program, and the start of the next.
        let is_one = value[1 + length..].starts_with(quote) && !(is_equals && inner.contains(char::is_whitespace));
        return is_one.then(|| start + 1..start + 1 + length);
    }
    let length = match is_equals {
        // An expression of a program.
        true if is_spaced => return None,
        true => value.find(|c: char| c.is_whitespace() || "&;,\"'`<>#)}]=".contains(c)).unwrap_or(value.len()),
        // In YAML, a colon is followed by a space. A block, a list or a mapping is searched by itself.
        false if value.len() == after.len() || value.starts_with(['|', '>', '[', '{', '&', '*']) => return None,
        false => {
            let ends = [value.find('\n'), value.find(" #"), value.find(", "), value.find('}')];
            value[..ends.into_iter().flatten().min().unwrap_or(value.len())].trim_end().len()
        }
    };
    Some(start..start + length)
}

fn is_name(name: &str, in_query: bool) -> bool {
    let name = name.rsplit('.').next().unwrap_or_default().trim_start_matches('-');
    let name = name.to_ascii_lowercase().replace('-', "_");
    let name = name.as_str();
    NAMES.contains(&name) || ENDS.iter().any(|end| name.ends_with(end)) || in_query && IN_QUERIES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'a>(text: &'a str, path: &str) -> Vec<&'a str> {
        places(text, path).into_iter().map(|place| &text[place]).collect()
    }

    #[test]
    fn m10_secrets_inside_strings_are_found() {
        for (text, expected) in [
            ("https://u:p@s@api.example/x", &["p@s"][..]),
            ("https://ghp_a1@github.com/x", &["ghp_a1"]),
            ("https://api/x?access_token=t1&page=2&api_key=t2#f", &["t1", "t2"]),
            ("https://x/?sv=2020&sig=s%2Fg&key=k&code=c", &["s%2Fg", "k", "c"]),
            ("root:p1@tcp(127.0.0.1:3306)/db", &["p1"]),
            ("root:p@1@tcp(127.0.0.1:3306)/?a=b@c", &["p@1"]),
            ("user:p2@host:9200", &["p2"]),
            ("user:p2@h1:9200,user:p3@h2:9200", &["p2", "p3"]),
            (":p4@redis:6379", &["p4"]),
            ("host=db user=u password=p5 dbname=x", &["p5"]),
            ("host=db password='p 6'", &[]),
            ("Endpoint=sb://x/;SharedAccessKeyName=n;SharedAccessKey=k1=;EntityPath=e", &["k1"]),
            ("Server=h;Uid=u;Pwd=p7;", &["p7"]),
            ("Authorization: Bearer b1", &["Bearer b1"]),
            ("Bearer abcdefgh1", &["abcdefgh1"]),
            ("inner:\n  password: p8 # why\n  user: u\n  token: \"t 3\"\n", &["p8", "t 3"]),
            ("{password: p9, user: u}", &["p9"]),
            (r#"{"client_id":"c","client_secret":"s1"}"#, &["s1"]),
            ("var apiKey = 1; var password = \"p0\";", &["p0"]),
            ("export PGPASSWORD=p1; psql", &["p1"]),
        ] {
            assert_eq!(found(text, "inputs.0.x"), expected, "{text}");
        }
        assert_eq!(found("X-Vault-Key: v", "inputs.0.headers.0"), ["v"]);
        assert_eq!(found("X-Vault-Key: v", "inputs.0.x.0"), [""; 0]);
    }

    #[test]
    fn strings_without_secrets_are_kept() {
        for text in [
            "https://h/?a=b:c@d",
            "https://u:${PW}@h",
            "https://h:8220",
            "ssh://git@host/x",
            "see https://h:1 or a@b",
            "mailto:ops@example.org",
            "nginx:1.25@sha256:abc",
            "git@github.com:x/y",
            "token_file: /etc/token",
            "password: ${env.PW}",
            "password: $co.elastic.secret{x}",
            "Bearer [[.state.token]]",
            "Basic authentication is off",
            "--max-tokens=5",
            "state.url + \"?token=\" + state.token",
            "${host.name} == 'a' and ${env.token} == 'b'",
            "token = params.token",
            "password: |\n",
            "enable_token: true",
        ] {
            assert_eq!(found(text, "inputs.0.x"), [""; 0], "{text}");
        }
    }
}
