//! A host with both programs, and a base path and ports of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use muster_agent::paths::Layout;
use muster_agent::state::disk::DiskStore;
use muster_agent::state::{Enrollment, Store as _};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;

/// Maximum time to wait for a state.
const WAIT: Duration = Duration::from_secs(60);

pub struct Host {
    directory: tempfile::TempDir,
    pub port: u16,
    local_port: u16,
}

/// Files of a certificate.
pub struct Made {
    pub ca: String,
    pub chain: String,
    pub key: String,
}

/// A running program, which is stopped at the end of the test.
pub struct Daemon(Child);

impl Daemon {
    pub fn new(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    pub fn wait(&mut self) {
        let _ = self.0.wait();
    }

    pub fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        // It may have ended already.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

pub fn output(command: &mut Command) -> (i32, String) {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code().unwrap_or(-1), text)
}

/// A free port below those that the system gives to outgoing connections, which would take it before the server does.
fn free_port() -> u16 {
    use std::hash::{BuildHasher as _, RandomState};
    let free = |port: &u16| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok();
    let random = || 10_000 + u16::try_from(RandomState::new().hash_one(0) % 20_000).unwrap();
    std::iter::repeat_with(random).find(free).unwrap()
}

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_muster-agent"))
}

/// The server's program, which a build of the workspace puts beside the agent.
pub fn muster() -> PathBuf {
    let beside = program().with_file_name("muster");
    assert!(beside.is_file(), "{} is missing; run cargo build --workspace --bins", beside.display());
    beside
}

impl Host {
    pub fn new() -> Self {
        muster();
        Self { directory: tempfile::tempdir().unwrap(), port: free_port(), local_port: free_port() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        let base = self.directory.path().join("agent");
        if name.is_empty() { base } else { base.join(name) }
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("agent-server")
    }

    pub fn local_url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}", self.local_port)
    }

    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program());
        command.arg(name).arg("--base-path").arg(self.path("")).env_remove("MUSTER_ENROLLMENT_TOKEN");
        command
    }

    /// The flags of a server that disturbs no other one.
    pub fn server_flags(&self) -> Vec<String> {
        let (port, local) = (self.port.to_string(), self.local_port.to_string());
        let flags = ["--fleet-server-port", &port, "--fleet-server-local-port", &local];
        flags.into_iter().chain(["--fleet-server-set", "admin.listen=none"]).map(str::to_owned).collect()
    }

    /// The variables of a container with a server that disturbs no other one.
    pub fn server_variables(&self, port: u16) -> [(&'static str, String); 5] {
        [
            ("FLEET_SERVER_ENABLE", "1".into()),
            ("FLEET_SERVER_PORT", port.to_string()),
            ("FLEET_SERVER_LOCAL_PORT", self.local_port.to_string()),
            ("FLEET_SERVER_POLICY_ID", "own".into()),
            ("FLEET_SERVER_SET", "admin.listen=none".into()),
        ]
    }

    pub fn enroll(&self, more: &[&str]) -> (i32, String) {
        let mut flags = self.server_flags();
        if more.contains(&"--fleet-server-port") {
            flags.drain(..2);
        }
        output(self.command("enroll").args(flags).args(["--attempts", "1"]).args(more))
    }

    pub fn enroll_at(&self, url: &str, token: &str, more: &[&str]) -> (i32, String) {
        let mut command = self.command("enroll");
        command.args(["--url", url, "--attempts", "1"]).args(more).env("MUSTER_ENROLLMENT_TOKEN", token);
        output(&mut command)
    }

    pub fn run(&self) -> Daemon {
        Daemon(self.command("run").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    pub fn run_installed(&self) -> Daemon {
        let mut command = Command::new(self.path("muster-agent"));
        Daemon(command.arg("run").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Runs the server without an agent.
    pub fn serve(&self) -> Daemon {
        let mut command = Command::new(muster());
        command.args(["serve", "--agent-listen", "none", "--local-listen", "none", "--admin-listen", "none"]);
        let server = command.arg("--data-dir").arg(self.data()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let daemon = Daemon(server.unwrap());
        until(|| self.data().join("listen.json").is_file().then_some(()), || "no server".into());
        daemon
    }

    pub fn until_status(&self, good: impl Fn(&Value) -> bool) -> Value {
        let last = std::cell::RefCell::new(String::new());
        let look = || {
            let (_, text) = output(self.command("status").args(["--output", "json"]));
            let status: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
            *last.borrow_mut() = text;
            good(&status).then_some(status)
        };
        until(look, || last.borrow().clone())
    }

    /// Waits until the agent is connected and has its policy.
    pub fn until_healthy(&self) -> Value {
        self.until_status(|status| status["state"] == "HEALTHY" && status["fleet"]["state"] == "HEALTHY")
    }

    /// The stored enrollment.
    pub fn enrollment(&self) -> Enrollment {
        let base = camino::Utf8PathBuf::from_path_buf(self.path("")).unwrap();
        DiskStore::new(Layout::new(base)).enrollment().unwrap().unwrap()
    }

    /// Waits until nothing listens on the port for agents.
    pub fn until_silent(&self) {
        let connect = || std::net::TcpStream::connect(("127.0.0.1", self.port));
        until(|| connect().is_err().then_some(()), || "the server is still running".into());
    }

    pub fn muster(&self, args: &[&str]) -> String {
        let (code, text) = output(Command::new(muster()).args(args).env("MUSTER_DATA_DIR", self.data()));
        assert_eq!(code, 0, "{args:?}: {text}");
        text
    }

    pub fn muster_json(&self, args: &[&str]) -> Value {
        let text = self.muster(&[args, &["--output", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }

    /// Issues a certificate for `name` with a new CA.
    pub fn certificate(&self, name: &str) -> Made {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.into()]).unwrap().signed_by(&key, &ca).unwrap();
        let stem = format!("{:x}", self.directory.path().read_dir().unwrap().count());
        let file = |kind: &str, pem: String| {
            let path = self.directory.path().join(format!("{stem}.{kind}"));
            std::fs::write(&path, pem).unwrap();
            path.into_os_string().into_string().unwrap()
        };
        let (ca, chain, key) = (ca.pem(), leaf.pem(), key.serialize_pem());
        Made { ca: file("ca", ca), chain: file("crt", chain), key: file("key", key) }
    }
}

pub fn until<T>(mut look: impl FnMut() -> Option<T>, last: impl Fn() -> String) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < WAIT, "{}", last());
        std::thread::sleep(Duration::from_millis(100));
    }
}
