//! Many check-ins of other hosts do not delay the agent that supervises the server (AG106).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::host::Host;

/// Hosts that check in as fast as they can.
const OTHERS: usize = 16;
/// Maximum time of an action of the local agent, with builds and other tests beside it.
const LIMIT: Duration = Duration::from_secs(5);

/// Sends a request, and returns the status and the body of the response.
fn post(stream: &mut BufReader<TcpStream>, path: &str, key: &str, body: &Value) -> std::io::Result<(u16, Value)> {
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: ApiKey {key}\r\nuser-agent: elastic agent 8.18.8\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.get_mut().write_all(format!("{head}{body}").as_bytes())?;
    let (mut status, mut length, mut line) = (0, 0, String::new());
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let lower = line.trim_end().to_lowercase();
        match (lower.strip_prefix("http/1.1 "), lower.strip_prefix("content-length: ")) {
            (Some(rest), _) => status = rest.split(' ').next().and_then(|code| code.parse().ok()).unwrap_or(0),
            (_, Some(bytes)) => length = bytes.parse().unwrap_or(0),
            _ if lower.is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}

/// Enrolls, and checks in until the end without ever running the policy, so that every poll is answered at once. Returns the
/// number of answers.
fn check_in(port: u16, token: &str, ended: &AtomicBool, answered: &AtomicUsize) {
    let connect = || TcpStream::connect(("127.0.0.1", port)).map(BufReader::new);
    let enroll = json!({"type": "PERMANENT", "metadata": {"local": {}, "user_provided": {}}});
    let (status, item) = post(&mut connect().unwrap(), "/api/fleet/agents/enroll", token, &enroll).unwrap();
    assert_eq!(status, 200, "{item}");
    let key = item["item"]["access_api_key"].as_str().unwrap();
    let path = format!("/api/fleet/agents/{}/checkin", item["item"]["id"].as_str().unwrap());
    let body = json!({"status": "online", "message": "", "agent_policy_id": "", "policy_revision_idx": 0});
    let mut stream = connect().unwrap();
    while !ended.load(Ordering::Relaxed) {
        match post(&mut stream, &path, key, &body) {
            Ok((200, _)) => drop(answered.fetch_add(1, Ordering::Relaxed)),
            // The limits of the listener for other hosts are part of what protects the local one.
            _ => stream = connect().unwrap(),
        }
    }
}

#[test]
fn ag106_a_rush_of_other_hosts_does_not_delay_the_local_agent() {
    let host = Host::new();
    let (code, text) = host.enroll(&["--fleet-server-insecure-http"]);
    assert_eq!(code, 0, "{text}");
    let _daemon = host.run();
    let agent = host.until_healthy()["agent_id"].as_str().unwrap().to_owned();
    let token = host.muster_json(&["enrollment-key", "create"])["api_key"].as_str().unwrap().to_owned();
    let (ended, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let others: Vec<_> = (0..OTHERS)
        .map(|_| {
            let (token, ended, answered, port) = (token.clone(), ended.clone(), answered.clone(), host.port);
            std::thread::spawn(move || check_in(port, &token, &ended, &answered))
        })
        .collect();
    let begun = Instant::now();
    while answered.load(Ordering::Relaxed) < 10 * OTHERS {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", answered.load(Ordering::Relaxed));
        std::thread::sleep(Duration::from_millis(20));
    }
    for level in ["debug", "info", "warning", "error", "info"] {
        let begun = Instant::now();
        // From the action over the agent's poll to its ack.
        host.muster(&["agent", "log-level", &agent, "--level", level, "--wait"]);
        assert!(begun.elapsed() < LIMIT, "{level}: {:?}", begun.elapsed());
    }
    ended.store(true, Ordering::Relaxed);
    others.into_iter().for_each(|other| other.join().unwrap());
}
