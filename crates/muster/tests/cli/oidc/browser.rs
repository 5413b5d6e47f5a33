//! A browser: cookies per host, and redirects that are followed step by step.

use std::collections::BTreeMap;

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Method, Response, Url};

/// Maximum number of redirects.
const MOST: usize = 12;

/// A browser of a person who is logged in at the provider with this account.
pub struct Browser {
    http: reqwest::Client,
    account: &'static str,
    pub cookies: BTreeMap<String, BTreeMap<String, String>>,
}

/// A response.
#[derive(Debug)]
pub struct Page {
    pub url: Url,
    pub status: u16,
    pub text: String,
    pub location: Option<Url>,
}

impl Page {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

impl Browser {
    pub fn of(account: &'static str) -> Self {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let plain = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
        Self { http: plain.tls_certs_only([]).build().unwrap(), account, cookies: BTreeMap::new() }
    }

    fn host(url: &Url) -> String {
        format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(80))
    }

    /// Sends one request, and keeps the cookies of the response.
    pub async fn send(&mut self, method: Method, url: Url, form: Option<String>) -> Page {
        let jar = self.cookies.entry(Self::host(&url)).or_default();
        let cookies: Vec<String> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = self.http.request(method, url.clone()).header("test-account", self.account);
        request = request.header(COOKIE, cookies.join("; ")).header("sec-fetch-site", "same-origin");
        if let Some(form) = form {
            request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
        }
        let response: Response = request.send().await.unwrap();
        for line in response.headers().get_all(SET_COOKIE) {
            let line = line.to_str().unwrap();
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            match value {
                "" => jar.remove(name),
                value => jar.insert(name.to_owned(), value.to_owned()),
            };
        }
        let location = response.headers().get(LOCATION).map(|value| url.join(value.to_str().unwrap()).unwrap());
        let status = response.status().as_u16();
        Page { url, status, text: response.text().await.unwrap(), location }
    }

    pub async fn get(&mut self, url: &str) -> Page {
        self.send(Method::GET, url.parse().unwrap(), None).await
    }

    /// Follows redirects to the end, or to the first URL that contains `stop`, which is not opened.
    pub async fn follow(&mut self, url: &str, stop: Option<&str>) -> Page {
        let mut page = self.get(url).await;
        for _ in 0..MOST {
            let Some(next) = page.location.clone() else { return page };
            if stop.is_some_and(|stop| next.as_str().contains(stop)) {
                return page;
            }
            page = self.send(Method::GET, next, None).await;
        }
        panic!("too many redirects: {page:?}");
    }
}
