//! `cargo xtask schemathesis` sends generated requests to a server, and compares its responses with the OpenAPI document.
//!
//! schemathesis is a program in Python. It is installed into `target/schemathesis`, with pip, from the configured package index.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;

use crate::process::Process;
use crate::shell;

/// The version that is installed.
const VERSION: &str = "4.32";
/// What makes a response wrong: a server error, or anything that the document does not have.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
/// Operations that are left out: streams do not end, and the others revoke the credentials of the run itself. schemathesis takes ids
/// from responses, so that it would soon delete its own account, or its binding, after which every response is 403.
const EXCLUDED: &str = r"/_stream$|/session|^DELETE /api/v1/(bindings|users|service_accounts|tokens)/\{id\}$";

/// Arguments of `schemathesis`.
#[derive(Args)]
pub struct SchemathesisArgs {
    /// Maximum number of generated requests for each endpoint.
    #[arg(long, default_value_t = 20)]
    examples: u32,
    /// Maximum duration in seconds.
    #[arg(long, default_value_t = 120)]
    seconds: u32,
    /// Seed of the generated requests [default: random].
    #[arg(long)]
    seed: Option<u64>,
    /// URL of a server to use, instead of starting one; requires MUSTER_TOKEN.
    #[arg(long)]
    url: Option<String>,
}

/// Runs schemathesis.
pub fn run(args: &SchemathesisArgs) -> anyhow::Result<()> {
    let directory = shell::target()?.join("schemathesis");
    let program = installed(&directory)?;
    if let Some(url) = &args.url {
        let token = std::env::var("MUSTER_TOKEN").context("MUSTER_TOKEN is not set")?;
        return shell::run(check(&program, args, url, &token));
    }
    shell::run(shell::cargo(&["build", "--package", "muster"]))?;
    let server = Server::start(&directory.join("server"))?;
    let (url, token) = (server.url()?, server.token()?);
    shell::run(check(&program, args, &url, &token))
}

/// Installs schemathesis, unless it is there.
fn installed(directory: &Path) -> anyhow::Result<PathBuf> {
    let venv = directory.join(format!("venv-{VERSION}"));
    let program = venv.join("bin/schemathesis");
    if !program.try_exists()? {
        let mut python = Command::new("python3");
        python.args(["-m", "venv", "--clear"]).arg(&venv);
        shell::run(python)?;
        let mut pip = Command::new(venv.join("bin/pip"));
        pip.args(["install", "--quiet", &format!("schemathesis=={VERSION}.*")]);
        shell::run(pip)?;
    }
    Ok(program)
}

fn check(program: &Path, args: &SchemathesisArgs, url: &str, token: &str) -> Command {
    let mut command = Command::new(program);
    command.arg("run").arg(format!("{url}/api/v1/openapi.json")).args(["--url", url]);
    command.arg("--header").arg(format!("Authorization: ApiKey {token}"));
    command.args(["--checks", CHECKS, "--exclude-name-regex", EXCLUDED, "--continue-on-failure"]);
    // Not `stateful`, which deletes the account of the run.
    command.args(["--phases", "examples,coverage,fuzzing", "--max-examples", &args.examples.to_string()]);
    command.args(["--max-time", &args.seconds.to_string()]);
    if let Some(seed) = args.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    command
}

/// A server on free ports.
struct Server {
    _process: Process,
    program: PathBuf,
    data: PathBuf,
}

impl Server {
    fn start(directory: &Path) -> anyhow::Result<Self> {
        if directory.try_exists()? {
            std::fs::remove_dir_all(directory)?;
        }
        std::fs::create_dir_all(directory)?;
        let (program, data) = (shell::target()?.join("debug/muster"), directory.join("data"));
        let mut command = Command::new(&program);
        command.args(["serve", "--agent-listen", "127.0.0.1:0", "--local-listen", "none"]);
        command.args(["--admin-listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
        let process = Process::start(&mut command, &directory.join("log"))?;
        let mut server = Self { _process: process, program, data };
        let listen = server.data.join("listen.json");
        server._process.wait_until(|| address(&listen).is_ok()).context("muster serve, see the log in target")?;
        Ok(server)
    }

    fn url(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}", address(&self.data.join("listen.json"))?))
    }

    /// Creates the token of an administrator.
    fn token(&self) -> anyhow::Result<String> {
        self.run(&["user", "create", "schemathesis", "--service-account"])?;
        self.run(&["role", "bind", "administrator", "--user", "schemathesis"])?;
        let created = self.run(&["token", "create", "--owner", "schemathesis", "--output", "json"])?;
        let created: Value = serde_json::from_str(&created).context("output of muster token create")?;
        Ok(created["token"].as_str().context("no token")?.to_owned())
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(&self.program).args(arguments).env("MUSTER_DATA_DIR", &self.data).output()?;
        anyhow::ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn address(listen: &Path) -> anyhow::Result<SocketAddr> {
    let listen: Value = serde_json::from_slice(&std::fs::read(listen)?)?;
    Ok(listen["admin"].as_str().context("no admin listener")?.parse()?)
}
