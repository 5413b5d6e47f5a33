//! Links. Every address on a page begins with the path under which the server is published, and with that of a space. They are
//! built here, so that no page can omit either of them.

use std::fmt;

use axum::http::header::REFERER;
use axum::http::{HeaderMap, Uri};
use muster_core::id::SpaceId;
use muster_management::base_path::BasePath;

/// The beginning of all links of a page. Templates write it before a path: `{{ frame.base }}/agents`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    published: BasePath,
    /// Path of the space; empty for the default space.
    space: String,
}

impl Base {
    /// Returns that of the pages without a space, which is also that of the default space.
    pub fn root() -> Self {
        Self { published: BasePath::current(), space: String::new() }
    }

    /// Returns that of a space that a path names.
    pub fn below(space: &str) -> Self {
        Self { space: format!("/s/{space}"), ..Self::root() }
    }

    /// Returns that of a space.
    pub fn of(space: &SpaceId) -> Self {
        if *space == SpaceId::default() { Self::root() } else { Self::below(space.as_str()) }
    }

    /// The path of the space, as clients that have the server's URL need it.
    pub fn space(&self) -> &str {
        &self.space
    }

    /// Returns the link to a path in the space.
    pub fn link(&self, path: impl fmt::Display) -> Link {
        let path = path.to_string();
        // Below a space, the overview has no slash at its end.
        let path = if self.space.is_empty() { path.as_str() } else { path.trim_end_matches('/') };
        Link(format!("{self}{path}"))
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.published, self.space)
    }
}

/// A link to a page of this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link(String);

impl Link {
    /// Returns the link to a path of the server, which names its space itself.
    pub fn to(path: &str) -> Self {
        Base::root().link(path)
    }

    /// The link as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Link> for String {
    fn from(link: Link) -> Self {
        link.0
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the path of the page that a form was on, with its query. The host is left out: the form is of this server.
pub fn page_of_form(headers: &HeaderMap) -> Option<String> {
    // Without the header, the caller falls back to a page of its own choice.
    let page: Uri = headers.get(REFERER)?.to_str().ok()?.parse().ok()?;
    // Without the query, which can follow the base path directly.
    let path = BasePath::current().without(page.path()).to_owned();
    let query = page.query().map(|query| format!("?{query}")).unwrap_or_default();
    // Browsers read `//host` as the address of another server: a redirect there would leave this one.
    (!path.starts_with("//")).then(|| format!("{path}{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_name_the_space_once() {
        let shop = Base::of(&SpaceId::parse("shop").unwrap());
        assert_eq!(Base::root().link("/").as_str(), "/");
        assert_eq!((shop.link("/").as_str(), shop.link("/agents").as_str()), ("/s/shop", "/s/shop/agents"));
        assert_eq!((Base::of(&SpaceId::default()), Link::to("/s/shop/agents")), (Base::root(), shop.link("/agents")));
    }

    #[tokio::test]
    async fn the_page_of_a_form_is_below_the_base_path() {
        let base: BasePath = "/it/muster".parse().unwrap();
        for (page, expected) in [
            ("https://a.example/it/muster?q=a", Some("/?q=a")),
            ("https://a.example/it/muster/agents?q=/it/muster", Some("/agents?q=/it/muster")),
            ("https://a.example/agents", Some("/agents")),
            ("https://a.example//b.example", None),
        ] {
            let headers = HeaderMap::from_iter([(REFERER, page.parse().unwrap())]);
            let work = async {
                assert_eq!(page_of_form(&headers).as_deref(), expected, "{page}");
                axum::http::Response::new(())
            };
            base.answer(work).await;
        }
    }

    /// The crawl of all pages finds links that leave the base path; this finds those that no test renders.
    #[test]
    fn no_template_contains_an_absolute_path() {
        let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/templates"))];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                for attribute in ["href", "src", "action", "formaction", "hx-get", "hx-post", "hx-push-url"] {
                    let absolute = format!("{attribute}=\"/");
                    assert!(!text.contains(&absolute), "{}: {absolute}…, without the base", path.display());
                }
            }
        }
    }
}
