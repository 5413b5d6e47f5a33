//! The path under which the server is published (`admin.base_path`), such as `/muster` behind a reverse proxy.
//!
//! Routes and handlers never see it: [`BasePath::remove_from`] removes it from requests, whether or not the proxy has kept it, and
//! [`BasePath::answer`] limits cookies to it. Whatever sends a path to a browser asks [`BasePath::current`] for it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use axum::http::header::SET_COOKIE;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Response, Uri};

/// Maximum length, bytes.
const MAX: usize = 128;
/// First segments of the paths that the server itself has. With a base path that begins with one of them, the server would take its own
/// paths for paths below it. Tests compare the list with the routes.
const OWN: [&str; 32] = [
    "actions",
    "add-agent",
    "agents",
    "agents.csv",
    "alerts",
    "api",
    "assets",
    "audit",
    "carves",
    "checks",
    "device",
    "fleetd",
    "healthz",
    "hosts",
    "hosts.csv",
    "keys",
    "labels",
    "login",
    "logout",
    "metrics",
    "packs",
    "policies",
    "queries",
    "readyz",
    "rollouts",
    "s",
    "scripts",
    "settings",
    "setup",
    "software",
    "ui",
    "uninstall-tokens",
];

tokio::task_local! {
    static CURRENT: BasePath;
}

/// The path under which the server is published, without a slash at its end; empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BasePath(Arc<str>);

/// Reason why a text is not a base path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBasePath {
    /// It is relative, or ends with a slash.
    #[error("must begin with `/` and not end with it, such as /muster")]
    Form,
    /// It contains characters that a cookie, a header or a page would have to escape.
    #[error("may contain only letters, digits, `-`, `_`, `.`, `~` and `/`")]
    Character,
    /// Browsers remove the segments.
    #[error("must not contain empty segments, `.` or `..`")]
    Segment,
    /// It would hide paths of the server itself.
    #[error("must not begin with a segment of the server's own paths, such as /api, /s, /agents or /hosts")]
    Own,
    /// It is too long.
    #[error("longer than {MAX} bytes")]
    Long,
}

impl FromStr for BasePath {
    type Err = BadBasePath;

    fn from_str(text: &str) -> Result<Self, BadBasePath> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let rest = text.strip_prefix('/').filter(|_| !text.ends_with('/')).ok_or(BadBasePath::Form)?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
        match () {
            () if text.len() > MAX => Err(BadBasePath::Long),
            () if !rest.bytes().all(is_plain) => Err(BadBasePath::Character),
            () if rest.split('/').any(|segment| matches!(segment, "" | "." | "..")) => Err(BadBasePath::Segment),
            () if rest.split('/').next().is_some_and(|first| OWN.contains(&first)) => Err(BadBasePath::Own),
            () => Ok(Self(text.into())),
        }
    }
}

impl fmt::Display for BasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl BasePath {
    /// Returns that of the server that answers the request; empty outside of requests.
    pub fn current() -> Self {
        CURRENT.try_with(Self::clone).unwrap_or_default()
    }

    /// Returns a path below it as a path of the server; others as they are.
    pub fn without<'a>(&self, path: &'a str) -> &'a str {
        match path.strip_prefix(&*self.0) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => path,
        }
    }

    /// Removes the path from the address of a request, if the proxy has kept it. To be called before anything that looks at it.
    pub fn remove_from(&self, uri: &mut Uri) {
        if let Some(inner) = self.inner(uri) {
            *uri = inner;
        }
    }

    /// Answers a request, whose address is already one of the server, under this path.
    pub async fn answer<B>(&self, work: impl Future<Output = Response<B>>) -> Response<B> {
        if self.0.is_empty() {
            return work.await;
        }
        let mut response = CURRENT.scope(self.clone(), work).await;
        for (_, cookie) in response.headers_mut().iter_mut().filter(|(name, _)| **name == SET_COOKIE) {
            self.limit(cookie);
        }
        response
    }

    /// Returns the address without the path; `None` if it is not below it.
    fn inner(&self, uri: &Uri) -> Option<Uri> {
        let path = self.without(uri.path());
        if path.len() == uri.path().len() {
            return None;
        }
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(format!("{path}{query}")).ok()?);
        Uri::from_parts(parts).ok()
    }

    /// Makes a browser send a cookie only below the path.
    fn limit(&self, cookie: &mut HeaderValue) {
        let Some(text) = cookie.to_str().ok().filter(|text| text.contains("; Path=/;")) else { return };
        if let Ok(mut limited) = HeaderValue::from_str(&text.replace("; Path=/;", &format!("; Path={};", self.0))) {
            limited.set_sensitive(true);
            *cookie = limited;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> BasePath {
        "/it/muster".parse().unwrap()
    }

    #[test]
    fn base_paths_are_plain_and_absolute() {
        for good in ["", "/muster", "/it/Muster-2", "/a.b_c~d", "/agents-2", "/fleet/agents"] {
            assert_eq!(good.parse::<BasePath>().unwrap().to_string(), good);
        }
        let long = format!("/{}", "x".repeat(MAX));
        for (bad, why) in [
            ("muster", BadBasePath::Form),
            ("/", BadBasePath::Form),
            ("/muster/", BadBasePath::Form),
            ("/a b", BadBasePath::Character),
            ("/a;b", BadBasePath::Character),
            ("/%61", BadBasePath::Character),
            ("//host", BadBasePath::Segment),
            ("/a/../b", BadBasePath::Segment),
            ("/s/shop", BadBasePath::Own),
            ("/api", BadBasePath::Own),
            ("/agents", BadBasePath::Own),
            ("/hosts/muster", BadBasePath::Own),
            ("/metrics", BadBasePath::Own),
            (&long, BadBasePath::Long),
        ] {
            assert_eq!(bad.parse::<BasePath>(), Err(why), "{bad}");
        }
    }

    #[test]
    fn no_base_path_hides_the_page_for_devices_or_the_api() {
        for path in [crate::identity::device_page::PATH, "/api/status", "/api/v1", "/s/shop"] {
            assert_eq!(path.parse::<BasePath>(), Err(BadBasePath::Own), "{path}");
        }
    }

    #[test]
    fn a_base_path_ends_at_a_slash() {
        let shown = |path| base().without(path).to_owned();
        assert_eq!(shown("/it/muster"), "/");
        assert_eq!(shown("/it/muster/agents?q=a"), "/agents?q=a");
        // Another application, a path without it, and no base path at all.
        for other in ["/it/musterfon", "/it", "/agents"] {
            assert_eq!(shown(other), other);
        }
        assert_eq!(BasePath::default().without("/agents"), "/agents");
    }

    #[tokio::test]
    async fn requests_lose_the_base_path_and_cookies_are_limited_to_it() {
        for (asked, seen) in
            [("/it/muster/agents?q=a%20b", "/agents?q=a%20b"), ("/agents", "/agents"), ("/it/muster", "/")]
        {
            let mut uri: Uri = asked.parse().unwrap();
            base().remove_from(&mut uri);
            assert_eq!(uri.to_string(), seen);
            let work = async {
                assert_eq!(BasePath::current(), base());
                let cookies = ["a=b; Path=/; HttpOnly", "c=d; Path=/other; HttpOnly"];
                let response = cookies.iter().fold(Response::builder(), |to, one| to.header(SET_COOKIE, *one));
                response.body(()).unwrap()
            };
            let response = base().answer(work).await;
            let cookies: Vec<_> = response.headers().get_all(SET_COOKIE).iter().collect();
            assert_eq!(cookies, ["a=b; Path=/it/muster; HttpOnly", "c=d; Path=/other; HttpOnly"]);
        }
        assert_eq!(BasePath::current(), BasePath::default());
    }
}
