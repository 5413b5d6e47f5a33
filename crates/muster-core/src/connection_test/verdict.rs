//! What the responses of a test mean.

use serde_json::Value;

use super::{Expected, Failure};
use crate::certificate_names::plain;
use crate::reported::shortened_to;

/// Maximum length of what is quoted of a response, bytes.
const QUOTED: usize = 80;

/// The response to one of the requests of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Path that was requested.
    pub path: String,
    /// Status.
    pub status: u16,
    /// Content type; empty if there is none.
    pub content_type: String,
    /// Beginning of the body.
    pub body: Vec<u8>,
}

impl Answer {
    fn is_page(&self) -> bool {
        self.content_type.trim_start().to_ascii_lowercase().starts_with("text/html")
    }

    /// Whether a file is there, or the server sends clients elsewhere for it.
    fn is_file(&self) -> bool {
        matches!(self.status, 200..=399) && !self.is_page()
    }

    fn kind(&self) -> String {
        match self.content_type.as_str() {
            "" => "no content type".to_owned(),
            kind => quoted(kind),
        }
    }
}

/// Returns text of the other side as it may be shown.
fn quoted(text: &str) -> String {
    plain(&shortened_to(text, QUOTED)).into_owned()
}

/// Returns what is there, or why it is not what agents need; `None` if another request must decide.
pub fn judge(expected: Expected, answers: &[Answer]) -> Option<Result<String, Failure>> {
    match expected {
        Expected::FleetServer => answers.first().map(status),
        Expected::Tunnel => None,
        Expected::Packages => packages(answers),
    }
}

/// `GET /api/status` (EA §2).
fn status(answer: &Answer) -> Result<String, Failure> {
    let parsed: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let member = |name: &str| parsed.as_ref().and_then(|body| body[name].as_str()).map(quoted);
    let (Some(name), Some(state)) = (member("name"), member("status")) else {
        return Err(Failure {
            reason: format!(
                "/api/status returns {} with {}, not the status of a Fleet Server",
                answer.status,
                answer.kind()
            ),
            remedy: "check the port and the path: another web server or a load balancer answers there".to_owned(),
        });
    };
    let version = member("version").map(|version| format!(" {version}")).unwrap_or_default();
    if answer.status != 200 {
        return Err(Failure {
            reason: format!("{name}{version} reports {state} ({})", answer.status),
            remedy: "agents wait until it is healthy; see its logs".to_owned(),
        });
    }
    Ok(format!("{name}{version} reports {state}"))
}

fn packages(answers: &[Answer]) -> Option<Result<String, Failure>> {
    let is_directory = |answer: &Answer| answer.path.ends_with('/');
    if let Some(found) = answers.iter().find(|answer| !is_directory(answer) && answer.is_file()) {
        let note = if found.status >= 300 { ", through a redirect that is not followed" } else { "" };
        return Some(Ok(format!("{} is there{note}", found.path)));
    }
    if answers.len() < Expected::Packages.paths().len() {
        return None;
    }
    // A server that has a page for every path has one for the directory too, which proves nothing.
    let all_pages = answers.iter().all(|answer| answer.is_page() && matches!(answer.status, 200..=299));
    if let Some(listed) = answers.iter().find(|one| is_directory(one) && one.status == 200 && !all_pages) {
        return Some(Ok(format!("{} is there; it may have other versions than those looked for", listed.path)));
    }
    let tried: Vec<String> = answers.iter().map(|one| format!("{} ({})", one.path, one.status)).collect();
    let reason = match (all_pages, answers.iter().any(|answer| answer.status == 401)) {
        (true, _) => format!("every path returns a web page, not a package: {}", tried.join(", ")),
        (_, true) => format!("the server requires credentials: {}", tried.join(", ")),
        _ => format!("nothing of what agents download is there: {}", tried.join(", ")),
    };
    let remedy = "agents append these paths to the URL of the download source: correct its path, set `auth`, or copy the packages there";
    Some(Err(Failure { reason, remedy: remedy.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(path: &str, status: u16, content_type: &str, body: &str) -> Answer {
        Answer { path: path.into(), status, content_type: content_type.into(), body: body.into() }
    }

    fn told(content_type: &str, status: u16, body: &str) -> Result<String, String> {
        let judged = judge(Expected::FleetServer, &[answer("api/status", status, content_type, body)]);
        judged.unwrap().map_err(|failure| failure.reason)
    }

    #[test]
    fn a_fleet_server_says_who_it_is_and_other_servers_are_recognized() {
        let healthy = r#"{"name": "fleet-server", "status": "HEALTHY", "version": "9.5.0"}"#;
        assert_eq!(told("application/json", 200, healthy).unwrap(), "fleet-server 9.5.0 reports HEALTHY");
        let starting = r#"{"name": "fleet-server", "status": "STARTING"}"#;
        assert_eq!(told("application/json", 503, starting).unwrap_err(), "fleet-server reports STARTING (503)");
        let page = told("text/html; charset=utf-8", 200, "<html>secret-banner</html>").unwrap_err();
        assert!(page.contains("200 with text/html; charset=utf-8") && !page.contains("secret-banner"), "{page}");
        assert!(told("", 404, "").unwrap_err().contains("404 with no content type"));
        for other in ["[]", "{}", r#"{"name": 1, "status": "HEALTHY"}"#] {
            assert!(told("application/json", 200, other).is_err(), "{other}");
        }
        let long = format!(r#"{{"name": "{}", "status": "A\u001bB"}}"#, "x".repeat(10_000));
        assert!(told("application/json", 200, &long).unwrap().len() < 300);
    }

    #[test]
    fn packages_are_found_by_a_file_or_a_directory_and_the_missing_ones_are_named() {
        let paths = Expected::Packages.paths();
        let all = |with: [(u16, &str); 3]| {
            let answers: Vec<Answer> =
                paths.iter().zip(with).map(|(path, (status, kind))| answer(path, status, kind, "")).collect();
            judge(Expected::Packages, &answers).unwrap().map_err(|failure| failure.reason)
        };
        let first = [answer(&paths[0], 200, "application/gzip", "")];
        assert!(judge(Expected::Packages, &first).unwrap().unwrap().starts_with("beats/elastic-agent/elastic-agent-"));
        assert_eq!(judge(Expected::Packages, &[answer(&paths[0], 404, "", "")]), None, "the next path decides");
        assert!(all([(404, ""), (302, ""), (404, "")]).unwrap().contains("redirect"));
        assert!(all([(404, "text/html"), (404, "text/html"), (200, "text/html")]).unwrap().contains("other versions"));
        let pages = all([(200, "text/html"), (200, "text/html"), (200, "text/html")]).unwrap_err();
        assert!(pages.contains("a web page"), "{pages}");
        let missing = all([(404, ""), (404, ""), (403, "")]).unwrap_err();
        assert!(missing.contains("linux-x86_64.tar.gz (404)") && missing.contains("elastic-agent/ (403)"), "{missing}");
        assert!(all([(401, ""), (401, ""), (401, "")]).unwrap_err().contains("requires credentials"));
    }
}
