//! The pages behind a reverse proxy that publishes them under a path.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::header::{CONTENT_TYPE, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, Method};
use muster_core::agent::Family;
use muster_core::disk_key::DiskSecret;
use muster_core::id::AgentId;
use muster_core::live_query::HostAnswer;

use crate::browsing::{Answer, PASSWORD, Pages};
use crate::policies::CHANGED;

const BASE: &str = "/it/muster";
/// Maximum number of addresses of a page that are visited: some objects lack links that others have.
const TIMES: usize = 6;

/// Returns the values of an attribute on a page.
fn values(html: &str, attribute: &str) -> Vec<String> {
    let begin = format!(" {attribute}=\"");
    let values = html.split(&begin).skip(1).filter_map(|rest| rest.split('"').next());
    values.map(|value| value.replace("&#38;", "&").replace("&amp;", "&")).collect()
}

fn is_below(path: &str) -> bool {
    path.strip_prefix(BASE).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

/// Returns what a response sends a browser to outside of the path.
fn leaks(asked: &str, answer: &Answer) -> Vec<String> {
    let mut all: Vec<String> = sent_to(&answer.headers);
    for attribute in ["href", "src", "action", "formaction", "hx-get", "hx-post", "hx-push-url"] {
        all.extend(values(&answer.html, attribute));
    }
    // Every other attribute that holds a path.
    let quoted = answer.html.split('"').filter(|text| text.starts_with("/s/") || text.starts_with("/api/"));
    all.extend(quoted.map(str::to_owned));
    all.retain(|path| path.starts_with('/') && !is_below(path));
    let cookies = answer.headers.get_all(SET_COOKIE).iter().map(|cookie| cookie.to_str().unwrap());
    all.extend(cookies.filter(|cookie| !cookie.contains(&format!("; Path={BASE};"))).map(str::to_owned));
    all.into_iter().map(|path| format!("{asked} leads to {path}")).collect()
}

/// Returns the commands and requests on a page of the space `shop` that are about another space.
fn copies_elsewhere(asked: &str, html: &str) -> Vec<String> {
    if !asked.starts_with(&format!("{BASE}/s/shop")) {
        return Vec::new();
    }
    let texts = |kind: &str| -> Vec<String> {
        let end = format!("-{kind}\">");
        let found = html.split("<pre class=\"command\" id=\"").skip(1).filter_map(|rest| rest.split_once(&end));
        found
            .filter(|(id, _)| !id.contains('"'))
            .filter_map(|(_, rest)| rest.split("</pre>").next())
            .map(str::to_owned)
            .collect()
    };
    let commands =
        texts("cli").into_iter().filter(|text| text.lines().any(|line| !line.starts_with("muster --space=shop ")));
    let requests = texts("api").into_iter().filter(|text| !text.contains("/s/shop/api/"));
    commands.chain(requests).map(|text| format!("{asked}: not of the space: {text}")).collect()
}

fn sent_to(headers: &HeaderMap) -> Vec<String> {
    let found = [LOCATION.as_str(), "hx-redirect"].into_iter().filter_map(|name| headers.get(name));
    found.map(|value| value.to_str().unwrap().to_owned()).collect()
}

/// Creates an object of each kind, so that all pages have a link.
async fn furnish(pages: &Pages, cookie: &str) {
    pages.agent("a-1", |_| {}).await;
    pages.prepare("/fleet/agents/a-1/upgrade", r#"{"version":"9.9.9","force":true}"#).await;
    let guarded = r#"{"id":"guarded","name":"guarded","namespace":"default","is_protected":true}"#;
    pages.prepare("/fleet/agent_policies", guarded).await;
    pages.prepare("/fleet/agent_policies/guarded/recovery_code", "").await;
    pages.prepare("/v1/spaces", r#"{"id":"shop","name":"Shop"}"#).await;
    pages.prepare("/v1/roles", r#"{"name":"own","privileges":["agents.read"]}"#).await;
    for (page, form) in [
        ("/keys/new", "name=office&policy=web&expiration=7d"),
        ("/settings/users/new", "name=bob"),
        ("/settings/tokens/new", "name=script"),
        ("/settings/outputs/new", "name=logs&kind=logstash&yaml=hosts%3A%0A-%20logs.example%3A5044"),
        ("/settings/hosts/new", "name=first&yaml=host_urls%3A%0A-%20https%3A%2F%2Ff.example%3A8220"),
        ("/settings/proxies/new", "name=first&yaml=url%3A%20http%3A%2F%2Fp.example%3A3128"),
        ("/settings/downloads/new", "name=first&yaml=host%3A%20https%3A%2F%2Fd.example%2F"),
        ("/alerts/new", "name=ops&kind=syslog&host=logs.example&port=6514&is_enabled=1"),
        ("/policies/new", "name=db&template=logs"),
        ("/checks/new", "name=disks&query=SELECT+1"),
        ("/queries/saved/new", "name=who&sql=SELECT+1"),
        ("/labels/new", "name=pilot"),
        ("/packs/new", "name=it&document=queries%3A+%7B%7D"),
        ("/scripts/saved/new", "name=clean&script=exit+0"),
        ("/settings/providers/new", "id=corp&issuer=https%3A%2F%2Fid.example&client_id=m&url=https%3A%2F%2Fm.example"),
        ("/s/shop/policies/new", "name=till"),
        ("/agents/views", "name=own&query=status%3Donline"),
    ] {
        let made = pages.post(cookie, &format!("{BASE}{page}"), form).await;
        assert!([200, 303].contains(&made.status.as_u16()), "{page}: {}", made.html);
        assert_eq!(leaks(page, &made), [""; 0]);
        if page == "/settings/users/new" {
            let bound = pages.post(cookie, made.goes_to(), "role=helpdesk").await;
            assert!(bound.status == 303 && leaks("a binding", &bound).is_empty(), "{}", bound.html);
        }
    }
    furnish_host(pages, cookie).await;
    let plan = [("members", "100"), ("soak", "1h"), ("approval", "no")];
    let started = pages.start_rollout(cookie, CHANGED, &plan).await;
    assert_eq!(started.status, 303, "{}", started.html);
}

/// Creates a host with software, which has answered a live query.
async fn furnish_host(pages: &Pages, cookie: &str) {
    pages.on_host("o-1", Family::Osquery, "h-1", "web-1", "ubuntu").await;
    let fleet = &pages.fleet.fleet;
    let entry = fleet.entry(&AgentId::trusted("o-1")).await.unwrap();
    let query = "fleet_detail_query_software_deb_packages";
    let rows = format!(r#"{{"{query}":[{{"name":"tool","version":"1"}}]}}"#);
    fleet.software().reported(&entry, &rows, &format!(r#"{{"{query}":0}}"#)).await.unwrap();
    fleet.software().index().await.unwrap();
    let started = confirmed(pages, cookie, "/queries/run", "sql=SELECT+1&timeout=60s").await;
    let id = started.rsplit('/').next().unwrap();
    let answer = HostAnswer { rows: r#"[{"a":"1"}]"#.to_owned(), row_count: 1, ..HostAnswer::default() };
    fleet.live_queries().answer(&entry, id, answer).await.unwrap();
    pages.on_host("b-1", Family::Orbit, "h-1", "web-1", "ubuntu\ndebian").await;
    confirmed(pages, cookie, "/scripts/run", "script=exit+0&hosts=web-1&timeout=60s&expiry=3600").await;
    pages.carve("carve-1", "web-1", 2).await;
    let orbit = fleet.entry(&AgentId::trusted("b-1")).await.unwrap();
    let secret = DiskSecret { key: "123-456".into(), salt: None, key_slot: None };
    fleet.disk_keys().store(&orbit, &secret).await.unwrap();
    let installer = pages.installer("tool").await;
    pages.install(cookie, BASE, &installer, "kind=&kuery=family%3Aorbit").await;
}

/// Sends a form that is shown again with what is to be confirmed, and confirms it. Returns where it leads.
async fn confirmed(pages: &Pages, cookie: &str, page: &str, form: &str) -> String {
    let path = format!("{BASE}{page}");
    let review = pages.post(cookie, &path, form).await.html;
    let sealed = review.split("name=\"confirmed\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let begun = pages.post(cookie, &path, &format!("{form}&confirmed={sealed}")).await;
    assert!(begun.status == 303 && leaks(page, &begun).is_empty(), "{}", begun.html);
    begun.goes_to().to_owned()
}

/// Returns the path of the router that an address belongs to, and whether it is a page of a space.
fn pattern_of<'p>(patterns: &'p [String], path: &str) -> Option<&'p String> {
    let inner = path.strip_prefix("/s/shop").filter(|rest| rest.starts_with('/')).unwrap_or(path);
    let fits = |pattern: &str| {
        let (wanted, found): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), inner.split('/').collect());
        wanted.len() == found.len()
            && wanted.iter().zip(found).all(|(one, other)| one.starts_with('{') || *one == other)
    };
    patterns.iter().find(|pattern| *pattern == inner).or_else(|| patterns.iter().find(|pattern| fits(pattern)))
}

/// Visits every page and sends every form.
#[tokio::test]
async fn no_link_form_asset_redirect_or_cookie_leaves_the_base_path() {
    let pages = Pages::under(BASE).await;
    let cookie = pages.log_in("ann", "administrator").await;
    furnish(&pages, &cookie).await;
    let kit = pages.page(&cookie, &format!("{BASE}/ui/kit")).await.html;
    let listed = kit.split("id=\"paths\"").nth(1).unwrap().split("<code>").skip(1);
    let patterns: Vec<String> = listed.map(|rest| rest.split("</code>").next().unwrap().to_owned()).collect();
    assert!(patterns.len() > 80, "{patterns:?}");

    let mut open: Vec<String> =
        patterns.iter().filter(|one| !one.contains('{')).map(|one| format!("{BASE}{one}")).collect();
    open.extend([format!("{BASE}/s/shop"), format!("{BASE}/agents/bulk?of=all"), format!("{BASE}/none")]);
    let (mut visits, mut seen, mut found) = (BTreeMap::<String, usize>::new(), BTreeSet::new(), Vec::new());
    let mut forms = BTreeSet::new();
    while let Some(address) = open.pop() {
        let path = address.split('?').next().unwrap()[BASE.len()..].to_owned();
        let pattern = pattern_of(&patterns, &path).cloned().unwrap_or_else(|| path.clone());
        let times = visits.entry(pattern).or_default();
        if *times == TIMES || !seen.insert(address.clone()) {
            continue;
        }
        *times += 1;
        let answer = pages.page(&cookie, &address).await;
        found.extend(leaks(&address, &answer));
        found.extend(copies_elsewhere(&address, &answer.html));
        let is_page = answer.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
        if is_page {
            open.extend(
                values(&answer.html, "href").into_iter().filter(|link| is_below(link) && !link.contains("/api/")),
            );
            open.extend(values(&answer.html, "hx-get").into_iter().filter(|link| is_below(link)));
            forms.extend(values(&answer.html, "action").into_iter().filter(|link| is_below(link)));
        }
    }
    let unvisited: Vec<_> = patterns.iter().filter(|pattern| !visits.contains_key(*pattern)).collect();
    let only_posted = [
        "/reveal",
        "/test",
        "/mute",
        "/delete",
        "/setup-link",
        "/sign-out",
        "/unlock",
        "/end",
        "/save",
        "/stop",
        "/cancel",
        "/refetch",
        "/resume",
        "/hosts/{id}/labels",
        "/labels/{id}/hosts",
        "/packs/{id}/queries",
    ];
    let unvisited: Vec<_> = unvisited.iter().filter(|one| !only_posted.iter().any(|end| one.ends_with(end))).collect();
    assert!(unvisited.is_empty(), "no link leads to {unvisited:?}");

    // Empty forms: some fail, others act. Those that end the session come last.
    let (last, first): (Vec<_>, Vec<_>) =
        forms.into_iter().partition(|path| path.ends_with("/sign-out") || path.ends_with("out"));
    for path in first.into_iter().chain(last) {
        found.extend(leaks(&format!("the form {path}"), &pages.post(&cookie, &path, "").await));
    }
    found.sort();
    found.dedup();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[tokio::test]
async fn a_login_returns_to_the_page_under_the_base_path() {
    let pages = Pages::under(BASE).await;
    pages.log_in("ann", "administrator").await;
    // A proxy that keeps the path, and one that removes it.
    for path in ["/it/muster/s/shop/agents?q=a", "/s/shop/agents?q=a"] {
        let asked = pages.browse(Method::GET, path, &[], "").await;
        assert_eq!(asked.goes_to(), "/it/muster/login?return_to=%2Fs%2Fshop%2Fagents%3Fq%3Da");
        let form = pages.browse(Method::GET, asked.goes_to(), &[], "").await.html;
        assert!(
            form.contains("action=\"/it/muster/login\"") && form.contains("value=\"/s/shop/agents?q=a\""),
            "{form}"
        );
    }
    let same = ("sec-fetch-site", "same-origin");
    let fields = format!("username=ann&password={}&return_to=%2Fs%2Fshop%2Fagents%3Fq%3Da", PASSWORD.replace(' ', "+"));
    let done = pages.browse(Method::POST, "/it/muster/login", &[same], &fields).await;
    assert_eq!(done.goes_to(), "/it/muster/s/shop/agents?q=a");
    // A form whose session has ended returns to the page that it was on.
    let referer = ("referer", "http://127.0.0.1:8230/it/muster/policies/web/edit");
    let ended = pages.browse(Method::POST, "/it/muster/policies/web/edit", &[same, referer], "text=x").await.html;
    assert!(ended.contains("name=\"return_to\" value=\"/policies/web/edit\""), "{ended}");
    // An open list whose session has ended.
    let renewed = pages.browse(Method::GET, "/it/muster/agents?q=a&seen=1", &[("hx-request", "true")], "").await;
    assert_eq!(renewed.headers["hx-redirect"], "/it/muster/login?return_to=%2Fagents%3Fq%3Da");
    // Another application on the same host.
    assert_eq!(pages.browse(Method::GET, "/it/musterfon/agents", &[], "").await.status, 404);
}

#[tokio::test]
async fn a_theme_returns_to_its_page_and_the_api_knows_its_own_address() {
    let pages = Pages::under(BASE).await;
    let cookie = pages.log_in("ann", "administrator").await;
    let headers = [
        ("cookie", cookie.as_str()),
        ("sec-fetch-site", "same-origin"),
        ("referer", "https://proxy.example/it/muster/agents?q=a"),
    ];
    let themed = pages.browse(Method::POST, "/it/muster/settings/account/theme", &headers, "theme=dark").await;
    assert_eq!(themed.goes_to(), "/it/muster/agents?q=a");
    let document = pages.browse(Method::GET, "/it/muster/api/v1/openapi.json", &[], "").await.html;
    assert!(document.contains("\"url\":\"/it/muster/\"") && document.contains("\"url\":\"/it/muster/s/{space}\""));
    let shown = pages.page(&cookie, "/it/muster/keys").await.html;
    assert!(!shown.contains("$MUSTER_URL&#34;&#39;/it"), "the URL of clients contains the path: {shown}");
}
