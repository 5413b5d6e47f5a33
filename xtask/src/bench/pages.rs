//! Measures the web pages over the large store: their time, their size, and the cost of open lists.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use super::connection::{Answer, Connection};
use super::server::Server;
use super::table::{Goal, Goals, Row, Table};
use super::{Bench, p99, say};

const NAME: &str = "bench";
const PASSWORD: &str = "correct horse battery";
/// Requests of each page, whose percentile is that of the page.
const ROUNDS: usize = 200;
/// Pages that people look at, which are about the whole fleet. The first one is also measured by its size, and kept open.
const LISTS: [&str; 19] = [
    "/agents",
    "/agents?sort=hostname",
    "/agents?status=online",
    "/agents?q=tags%3Awest&sort=last_checkin&order=desc",
    "/agents?q=hostname%3Adrone-421*",
    "/agents?q=hostname%3A*99*",
    "/agents?q=local_metadata.os.platform%3Adebian&sort=hostname",
    "/agents/menu/tag",
    "/agents/menu/version",
    "/agents/menu/policy",
    "/agents/menu/key",
    "/",
    "/hosts",
    "/hosts?platform=linux",
    "/hosts?status=offline",
    "/hosts?q=hostname%3A*99*",
    "/software",
    "/actions",
    "/audit",
];
/// Size below which a page need not be compressed, bytes.
const SMALL: usize = 1_024;
/// Pages of the list by name that are followed from one to the next, up to the one that is measured.
const DEEP: usize = 100;
/// Lists that are open at the same time, the time between two requests of one, and the number of requests of each.
const OPEN: usize = 200;
const EVERY: Duration = Duration::from_millis(1_500);
const TIMES: u32 = 8;

/// A person that is logged in.
pub struct Visitor {
    connection: Connection,
    cookie: String,
}

impl Visitor {
    /// Creates a user, and logs it in.
    pub fn log_in(server: &Server) -> anyhow::Result<Self> {
        server.admin().post("/api/v1/users", &json!({"name": NAME, "password": PASSWORD}))?;
        server.admin().post("/api/v1/bindings", &json!({"user": NAME, "role": "administrator"}))?;
        let mut connection = Connection::open(&server.data.join("admin.sock"))?;
        let form = format!("username={NAME}&password={}", PASSWORD.replace(' ', "+"));
        let headers = "content-type: application/x-www-form-urlencoded\r\nsec-fetch-site: same-origin\r\n";
        let answer = connection.send("POST", "/login", headers, &form)?;
        anyhow::ensure!(answer.status == 303, "the login failed: {}", answer.status);
        let cookie = answer.header("set-cookie").and_then(|text| text.split(';').next()).context("no session")?;
        Ok(Self { connection, cookie: cookie.to_owned() })
    }

    fn get(&mut self, path: &str, headers: &str) -> anyhow::Result<Answer> {
        let headers = format!("cookie: {}\r\n{headers}", self.cookie);
        let answer = self.connection.send("GET", path, &headers, "")?;
        anyhow::ensure!(matches!(answer.status, 200 | 204), "{path}: {}", answer.status);
        Ok(answer)
    }

    fn html(&mut self, path: &str) -> anyhow::Result<String> {
        Ok(String::from_utf8(self.get(path, "")?.body)?)
    }
}

/// Adds the rows of pages while agents check in.
pub fn measure(bench: &Bench, visitor: &mut Visitor, table: &mut Table) -> anyhow::Result<()> {
    say("web pages of the large store");
    let deep = deep_page(visitor)?;
    let mut slowest = Duration::ZERO;
    for path in LISTS.into_iter().chain([deep.as_str()]) {
        let mut took = Vec::new();
        for _ in 0..ROUNDS {
            let sent = Instant::now();
            let answer = visitor.get(path, "accept-encoding: gzip\r\n")?;
            took.push(sent.elapsed());
            let is_small = answer.body.len() < SMALL;
            anyhow::ensure!(is_small || answer.header("content-encoding") == Some("gzip"), "{path} is not compressed");
        }
        let p99 = p99(took).context("no requests")?;
        say(&format!("p99 {:.1} ms: {path}", p99.as_secs_f64() * 1e3));
        slowest = slowest.max(p99);
    }
    let (page, assets) = sizes(visitor)?;
    let mut add = |figure: &str, unit, limit, ours| {
        let goals = Goals::new(Goal::AtMost(limit), Goal::AtMost(limit));
        table.add(bench.engine, Row { figure: figure.to_owned(), unit, goals, ours, other: None });
    };
    let stored = bench.sizes.stored;
    add(&format!("slowest web page over {stored} agents, p99"), "ms", 100.0, slowest.as_secs_f64() * 1e3);
    add("transfer of the first web page", "kB", 100.0, (page + assets) as f64 / 1e3);
    add("transfer of each further web page", "kB", 20.0, page as f64 / 1e3);
    Ok(())
}

/// Follows the list by name from page to page, and returns the link to the last one.
fn deep_page(visitor: &mut Visitor) -> anyhow::Result<String> {
    let mut path = LISTS[1].to_owned();
    for _ in 0..DEEP {
        let html = visitor.html(&path)?;
        let link = html.split("rel=\"next\" href=\"").nth(1).and_then(|rest| rest.split('"').next());
        path = link.with_context(|| format!("{path} has no next page"))?.replace("&#38;", "&");
    }
    Ok(path)
}

/// Returns the sizes of the list of agents, and of the assets that it needs, as they are sent.
fn sizes(visitor: &mut Visitor) -> anyhow::Result<(usize, usize)> {
    let html = visitor.html(LISTS[0])?;
    let links = html.split('"').filter(|text| text.starts_with("/assets/"));
    let mut assets = 0;
    for link in links {
        assets += visitor.get(link, "accept-encoding: gzip\r\n")?.body.len();
    }
    Ok((visitor.get(LISTS[0], "accept-encoding: gzip\r\n")?.body.len(), assets))
}

/// Adds the row of lists that are open while nothing changes.
pub fn idle(bench: &Bench, server: &Server, mut visitor: Visitor, table: &mut Table) -> anyhow::Result<()> {
    say(&format!("{OPEN} open lists"));
    let html = visitor.html(LISTS[0])?;
    let live = html
        .split("hx-get=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(|link| link.replace("&#38;", "&"));
    let live = live.into_iter().find(|link| link.contains("seen=")).context("the list does not renew itself")?;
    let headers = format!("cookie: {}\r\nhx-request: true\r\n", visitor.cookie);
    let mut open: Vec<Connection> =
        (0..OPEN).map(|_| Connection::open(&server.data.join("admin.sock"))).collect::<Result<_, _>>()?;
    let usage = server.process.usage();
    let (began, before) = (Instant::now(), usage.cpu()?);
    for time in 1..=TIMES {
        for connection in &mut open {
            let answer = connection.send("GET", &live, &headers, "")?;
            anyhow::ensure!(answer.status == 204, "{live}: {}, although nothing changed", answer.status);
        }
        std::thread::sleep((EVERY * time).saturating_sub(began.elapsed()));
    }
    let share = (usage.cpu()? - before) / began.elapsed().as_secs_f64();
    let goals = Goals::new(Goal::AtMost(5.0), Goal::AtMost(5.0));
    let figure = format!("CPU for {OPEN} open lists without changes, of a core");
    table.add(bench.engine, Row { figure, unit: "%", goals, ours: share * 100.0, other: None });
    Ok(())
}
