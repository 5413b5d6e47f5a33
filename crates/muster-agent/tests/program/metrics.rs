//! Metrics of the host at a receiver of OTLP/HTTP.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use serde_json::Value;

use crate::{Agent, output};

/// What a receiver got: the head of the request, and the document.
type Export = (String, Value);

/// Accepts every request with this response.
fn receiver(response: &'static str) -> (String, Receiver<Export>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if serve(stream.unwrap(), response, &sender).is_none() {
                return;
            }
        }
    });
    (address, received)
}

/// Serves one request. Returns `None` when nobody wants to know.
fn serve(mut stream: TcpStream, response: &str, exports: &Sender<Export>) -> Option<()> {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).unwrap() {
            // A connection without a request.
            0 => return Some(()),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        bytes.drain(..end + 4);
        break (head.clone(), length.trim().parse::<usize>().unwrap());
    };
    let missing = length - bytes.len();
    let mut rest = vec![0; missing];
    stream.read_exact(&mut rest).unwrap();
    bytes.extend(rest);
    let plain = muster_agent::net::gzip::decompress(&bytes, 8 << 20).unwrap().unwrap();
    let length = response.len();
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{response}");
    exports.send((head, serde_json::from_slice(&plain).unwrap())).ok()
}

/// A standalone agent that sends its metrics to these receivers.
fn agent(hosts: &[&str]) -> Agent {
    let agent = Agent::new();
    let (code, text) = output(agent.command("install").args(["--service", "none"]));
    assert_eq!(code, 0, "{text}");
    let policy = serde_json::json!({
        "outputs": {"metrics": {"type": "otlp", "hosts": hosts, "headers": {"X-Scope": "canary-header"}}},
        "inputs": [{"id": "host", "type": "host/metrics", "use_output": "metrics", "period": "1s"}],
    });
    std::fs::write(agent.path("policy.yml"), policy.to_string()).unwrap();
    agent
}

#[test]
fn metrics_of_the_host_are_sent_to_a_receiver_of_otlp() {
    let (address, exports) = receiver(r#"{"partialSuccess":{}}"#);
    // The first one does not exist.
    let agent = agent(&["http://127.0.0.1:1", &format!("{address}/base")]);
    let _daemon = agent.start();
    let (head, export) = exports.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(head.starts_with("post /base/v1/metrics http/1.1\r\n"), "{head}");
    for header in ["content-type: application/json", "content-encoding: gzip", "x-scope: canary-header"] {
        assert!(head.contains(header), "{head}");
    }
    let metrics = export["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap();
    let limit = metrics.iter().find(|metric| metric["name"] == "system.memory.limit").unwrap();
    let point = &limit["sum"]["dataPoints"][0];
    assert!(point["asInt"].as_str().unwrap().parse::<u64>().unwrap() > 0, "{point}");
    exports.recv_timeout(Duration::from_secs(30)).expect("further ones follow");
    let status = agent.until_status(|code, status| code == 0 && status["components"][0]["state"] == "HEALTHY");
    assert!(!status.to_string().contains("canary"), "{status}");
}

#[test]
fn a_receiver_that_rejects_metrics_degrades_the_input() {
    let (address, _exports) = receiver(r#"{"partialSuccess":{"rejectedDataPoints":"3","errorMessage":"quota"}}"#);
    let agent = agent(&[&address]);
    let _daemon = agent.start();
    let status = agent.until_status(|_, status| status["components"][0]["state"] == "DEGRADED");
    let message = status["components"][0]["message"].as_str().unwrap();
    assert!(message.contains("rejected 3 values: quota"), "{message}");
}
