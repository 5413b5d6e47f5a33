//! Many check-ins of other hosts do not delay the agent that supervises the server (AG106).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::host::Host;

/// Hosts that check in.
const OTHERS: usize = 16;
/// Pause of each of them between two check-ins.
const PAUSE: Duration = Duration::from_millis(20);
/// Maximum time of an action of the local agent, with builds and other tests beside it.
const LIMIT: Duration = Duration::from_secs(5);

fn send(stream: &mut TcpStream, path: &str, key: &str, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: ApiKey {key}\r\nuser-agent: elastic agent 8.18.8\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())
}

/// Returns the status and the body of a response.
fn receive(stream: TcpStream) -> std::io::Result<(u16, Value)> {
    let mut stream = BufReader::new(stream);
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

/// Enrolls, and checks in until the end, each time over a new connection, which cuts off the poll before.
fn check_in(port: u16, token: &str, ended: &AtomicBool, sent: &AtomicUsize) {
    let connect = || TcpStream::connect(("127.0.0.1", port));
    let enroll = json!({"type": "PERMANENT", "metadata": {"local": {}, "user_provided": {}}});
    let mut stream = connect().unwrap();
    send(&mut stream, "/api/fleet/agents/enroll", token, &enroll).unwrap();
    let (status, answer) = receive(stream).unwrap();
    assert_eq!(status, 200, "{answer}");
    let key = answer["item"]["access_api_key"].as_str().unwrap();
    let path = format!("/api/fleet/agents/{}/checkin", answer["item"]["id"].as_str().unwrap());
    let body = json!({"status": "online", "message": "", "agent_policy_id": "", "policy_revision_idx": 0});
    while !ended.load(Ordering::Relaxed) {
        // The listener for other hosts may limit them, which is part of what protects the local one.
        if connect().and_then(|mut stream| send(&mut stream, &path, key, &body)).is_ok() {
            sent.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(PAUSE);
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
    let (ended, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let others: Vec<_> = (0..OTHERS)
        .map(|_| {
            let (token, ended, sent, port) = (token.clone(), ended.clone(), sent.clone(), host.port);
            std::thread::spawn(move || check_in(port, &token, &ended, &sent))
        })
        .collect();
    let begun = Instant::now();
    while sent.load(Ordering::Relaxed) < 10 * OTHERS {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", sent.load(Ordering::Relaxed));
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
