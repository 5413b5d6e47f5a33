//! Measures requests with a valid API token while others send random tokens.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use super::connection::Connection;
use super::server::Server;
use super::table::{Goal, Goals, Row, Table};
use super::{Bench, policy, say};

/// Connections that send random tokens, and the pause between two requests of one: together 1,000 requests/s.
const GUESSING: u64 = 10;
const GUESS_EVERY: Duration = Duration::from_millis(10);
/// Pause between two requests with the valid token.
const GOOD_EVERY: Duration = Duration::from_millis(5);

/// What all of them ask for.
const ASKED: &str = "/api/fleet/agents?perPage=1";

/// Adds two rows.
pub fn measure(bench: &Bench, table: &mut Table) -> anyhow::Result<()> {
    say("API tokens");
    let server = Server::start(bench, "identity", &[])?;
    let admin = server.admin();
    admin.make_policy("bench", &policy::real_sized("identity"))?;
    admin.post("/api/v1/service_accounts", &json!({"name": "bench"}))?;
    admin.post("/api/v1/bindings", &json!({"user": "bench", "role": "auditor"}))?;
    let made = admin.post("/api/v1/tokens", &json!({"owner": "bench"}))?;
    let token = made["item"]["token"].as_str().context("no token")?;
    let socket = server.data.join("admin.sock");
    let during = Duration::from_secs(bench.sizes.seconds.into());
    let alone = p99(&socket, token, during)?;
    let guessing = Guessing::start(&socket);
    let attacked = p99(&socket, token, during)?;
    let sent = guessing.stop()?;
    say(&format!("{} random tokens in {} s", sent, bench.sizes.seconds));
    table.add(
        bench.engine,
        Row {
            figure: "latency of a request with an API token, p99".into(),
            unit: "ms",
            goals: Goals::NONE,
            ours: alone.as_secs_f64() * 1e3,
            other: None,
        },
    );
    table.add(
        bench.engine,
        Row {
            figure: "the same during 1,000 requests/s with random tokens, relative to the row above".into(),
            unit: "×",
            goals: Goals::new(Goal::AtMost(2.0), Goal::AtMost(2.0)),
            ours: attacked.as_secs_f64() / alone.as_secs_f64(),
            other: None,
        },
    );
    Ok(())
}

/// Returns the 99th percentile of the latencies of requests with a valid token.
fn p99(socket: &Path, token: &str, during: Duration) -> anyhow::Result<Duration> {
    let mut connection = Connection::open(socket)?;
    let (began, mut latencies) = (Instant::now(), Vec::new());
    while began.elapsed() < during {
        let sent = Instant::now();
        let (status, _) = connection.get(ASKED, Some(token))?;
        anyhow::ensure!(status == 200, "a request with a valid token: {status}");
        latencies.push(sent.elapsed());
        std::thread::sleep(GOOD_EVERY);
    }
    super::p99(latencies).context("no requests")
}

/// Threads that send random tokens.
struct Guessing {
    ends: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<anyhow::Result<()>>>,
    sent: Arc<AtomicU64>,
}

impl Guessing {
    fn start(socket: &Path) -> Self {
        let (ends, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..GUESSING).map(|number| {
            let (socket, ends, sent) = (socket.to_owned(), Arc::clone(&ends), Arc::clone(&sent));
            std::thread::spawn(move || guess(&socket, number, &ends, &sent))
        });
        let threads = threads.collect();
        Self { ends, threads, sent }
    }

    fn stop(self) -> anyhow::Result<u64> {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok(self.sent.load(Ordering::Relaxed))
    }
}

fn guess(socket: &Path, number: u64, ends: &AtomicBool, sent: &AtomicU64) -> anyhow::Result<()> {
    let mut connection = Connection::open(socket)?;
    let mut next = Instant::now();
    for request in 0u64.. {
        if ends.load(Ordering::Relaxed) {
            break;
        }
        // A key that nobody has, which the server looks up.
        let token = base64(format!("k{number}-{request}:secret").as_bytes());
        let (status, _) = connection.get(ASKED, Some(&token))?;
        anyhow::ensure!([401, 429].contains(&status), "a request with a random token: {status}");
        sent.fetch_add(1, Ordering::Relaxed);
        // Paced by the clock, so that slow responses do not lower the rate.
        next += GUESS_EVERY;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// Encodes in base64.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32| char::from(DIGITS[(bits & 63) as usize]);
    let chunk = |three: &[u8]| {
        let bits = three.iter().chain([0; 2].iter()).take(3).fold(0u32, |all, byte| all << 8 | u32::from(*byte));
        let all = [digit(bits >> 18), digit(bits >> 12), digit(bits >> 6), digit(bits)];
        let used = three.len() + 1;
        all.into_iter().take(used).chain(std::iter::repeat_n('=', 4 - used)).collect::<String>()
    };
    bytes.chunks(3).map(chunk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_standard() {
        assert_eq!(
            [base64(b"id:secret"), base64(b"a"), base64(b"ab"), base64(b"")],
            ["aWQ6c2VjcmV0", "YQ==", "YWI=", ""]
        );
    }
}
