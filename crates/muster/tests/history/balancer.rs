//! HAProxy between agents and servers, as `docs/scale.md` shows it, with `shutdown-sessions`: a server that is suspended loses its
//! agents within seconds.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::Process;

/// How soon the balancer notices that a server is gone, and lets the agents of one that does not answer connect to another.
const CHECKS: &str = "inter 500ms fastinter 200ms downinter 200ms fall 2 rise 1 on-marked-down shutdown-sessions";
const START: Duration = Duration::from_secs(10);

/// A running balancer.
pub struct Balancer {
    /// Where agents connect.
    pub port: u16,
    socket: PathBuf,
    _process: Process,
}

impl Balancer {
    /// Starts it in front of the servers with these ports, whose certificates chain to a CA.
    pub fn start(program: &Path, directory: &Path, ca: &Path, servers: impl Iterator<Item = u16>) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (socket, file) = (directory.join("balancer.sock"), directory.join("balancer.cfg"));
        let servers: String = servers
            .enumerate()
            .map(|(number, port)| {
                format!("  server s{number} 127.0.0.1:{port} verifyhost localhost check-sni localhost\n")
            })
            .collect();
        let (socket_path, ca) = (socket.display(), ca.display());
        let text = format!(
            "global\n  maxconn 9000\n  stats socket {socket_path} level admin\n\
             defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n  timeout check 1s\n\
             frontend agents\n  bind 127.0.0.1:{port}\n  default_backend muster\n\
             backend muster\n  option httpchk\n  http-check send meth GET uri /api/status ver HTTP/1.1 hdr Host muster\n  \
             http-check expect status 200\n  balance leastconn\n  \
             default-server check check-ssl verify required ca-file {ca} {CHECKS}\n{servers}"
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(program);
        let log = std::fs::File::create(directory.join("balancer.log")).unwrap();
        command.arg("-db").arg("-f").arg(file).stdout(Stdio::null()).stderr(log);
        let balancer = Self { port, socket, _process: Process::spawn(&mut command) };
        let end = Instant::now() + START;
        while !balancer.is_up() {
            assert!(Instant::now() < end, "no server is up for the balancer: {}", balancer.ask("show servers state"));
            std::thread::sleep(Duration::from_millis(20));
        }
        balancer
    }

    /// Sends the agents of a server to the others.
    pub fn move_away_from(&self, server: usize) {
        self.ask(&format!("set server muster/s{server} state drain"));
        self.ask(&format!("shutdown sessions server muster/s{server}"));
        self.ask(&format!("set server muster/s{server} state ready"));
    }

    fn is_up(&self) -> bool {
        UnixStream::connect(&self.socket).is_ok() && self.ask("show stat").contains(",UP,")
    }

    fn ask(&self, command: &str) -> String {
        let mut socket = UnixStream::connect(&self.socket).unwrap();
        socket.write_all(format!("{command}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }
}
