//! A server that keeps JSON documents by path, and streams lines to watchers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{broadcast, watch};

/// Status of documents whose requests get no response.
pub const HANGS: u16 = 0;

/// The server.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Mutex<Inner>>,
    lines: broadcast::Sender<String>,
    /// Whether writes get responses.
    answers: watch::Sender<bool>,
}

#[derive(Default)]
struct Inner {
    documents: BTreeMap<String, (u16, Value)>,
    requests: Vec<Received>,
}

/// A received request.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub query: String,
    pub authorization: Option<String>,
}

impl Api {
    pub fn new() -> Self {
        Self { inner: Arc::default(), lines: broadcast::channel(64).0, answers: watch::Sender::new(true) }
    }

    /// Serves on a Unix socket.
    pub fn on_socket(&self, path: &std::path::Path) {
        let (listener, api) = (UnixListener::bind(path).unwrap(), self.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(api.clone().serve(stream));
            }
        });
    }

    /// Serves on a port. Returns the URL.
    pub async fn on_port(&self) -> String {
        let (listener, api) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), self.clone());
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(api.clone().serve(stream));
            }
        });
        url
    }

    pub fn set(&self, path: &str, document: Value) {
        self.fail(path, 200, document);
    }

    pub fn fail(&self, path: &str, status: u16, document: Value) {
        self.inner.lock().unwrap().documents.insert(path.into(), (status, document));
    }

    pub fn document(&self, path: &str) -> Value {
        self.inner.lock().unwrap().documents.get(path).map(|(_, document)| document.clone()).unwrap_or_default()
    }

    /// Holds back the responses of writes, which take effect, or sends them.
    pub fn answer_writes(&self, answers: bool) {
        self.answers.send_replace(answers);
    }

    /// Sends a line to all watchers.
    pub fn tell(&self, line: &Value) {
        let _ = self.lines.send(format!("{line}\n"));
    }

    pub fn watchers(&self) -> usize {
        self.lines.receiver_count()
    }

    pub fn requests(&self) -> Vec<Received> {
        self.inner.lock().unwrap().requests.clone()
    }

    async fn serve(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let (mut bytes, mut byte) = (Vec::new(), [0]);
        while !bytes.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                return;
            }
            bytes.push(byte[0]);
        }
        let head = String::from_utf8(bytes).unwrap();
        let header =
            |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned));
        let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).await.unwrap();
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = Received { path: path.into(), query: query.into(), authorization: header("authorization") };
        // Before the answer, so that whoever has it is among the watchers.
        let watcher = self.lines.subscribe();
        self.inner.lock().unwrap().requests.push(request);
        if path == "/events" || query.contains("watch=true") {
            return watched(stream, watcher).await;
        }
        drop(watcher);
        let (status, document) = match method.as_str() {
            "GET" => self.get(path, query),
            _ => {
                let written = self.write(path, &serde_json::from_slice(&body).unwrap());
                self.answers.subscribe().wait_for(|answers| *answers).await.unwrap();
                written
            }
        };
        if status == HANGS {
            return std::future::pending().await;
        }
        let text = document.to_string();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", text.len());
        let _ = stream.write_all(format!("{head}{text}").as_bytes()).await;
    }

    fn get(&self, path: &str, query: &str) -> (u16, Value) {
        let part = query.split('&').find_map(|pair| pair.strip_prefix("continue=")).filter(|part| !part.is_empty());
        let path = part.map_or_else(|| path.to_owned(), |part| format!("{path}#{part}"));
        let missing = || (404, json!({"message": "not found"}));
        self.inner.lock().unwrap().documents.get(&path).cloned().unwrap_or_else(missing)
    }

    /// Creates an object in a list, or replaces one whose version is the stored one.
    fn write(&self, path: &str, object: &Value) -> (u16, Value) {
        let mut inner = self.inner.lock().unwrap();
        let name = object["metadata"]["name"].as_str().unwrap();
        let path = if path.ends_with(name) { path.to_owned() } else { format!("{path}/{name}") };
        let stored = inner.documents.get(&path).map(|(_, stored)| stored["metadata"]["resourceVersion"].clone());
        if stored.clone().unwrap_or_default() != object["metadata"]["resourceVersion"] {
            return (409, json!({"message": "conflict"}));
        }
        let mut object = object.clone();
        let version = stored.and_then(|stored| stored.as_str()?.parse::<u32>().ok()).unwrap_or(0);
        object["metadata"]["resourceVersion"] = (version + 1).to_string().into();
        inner.documents.insert(path, (200, object.clone()));
        (200, object)
    }
}

async fn watched(mut stream: impl AsyncRead + AsyncWrite + Unpin, mut lines: broadcast::Receiver<String>) {
    stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut byte = [0];
    loop {
        tokio::select! {
            // The client is gone.
            _ = stream.read(&mut byte) => return,
            line = lines.recv() => match line {
                // In two parts, as it may arrive from a network.
                Ok(line) => {
                    let (start, end) = line.split_at(line.len() / 2);
                    let _ = stream.write_all(start.as_bytes()).await;
                    tokio::task::yield_now().await;
                    let _ = stream.write_all(end.as_bytes()).await;
                }
                Err(_) => return,
            }
        }
    }
}
