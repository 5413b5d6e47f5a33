//! Headless Chromium, which chromedriver controls over WebDriver (W3C).

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::value;
use crate::admin::exchange;
use crate::process::Process;

/// A browser without a window. It ends with this value.
pub struct Browser {
    /// Ends after the session, whose end closes the browser.
    _driver: Process,
    port: u16,
    session: String,
}

impl Browser {
    /// Starts it.
    pub fn start(log: &Path) -> anyhow::Result<Self> {
        // A free port: the driver does not report one that it chooses in a form that is stable.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = Command::new("chromedriver");
        let mut driver =
            Process::start(command.arg(format!("--port={port}")), log).context("chromedriver is missing")?;
        driver.wait_until(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())?;
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"];
        // The certificate of the agents' listener is signed by the fleet's own CA.
        let options = json!({"acceptInsecureCerts": true, "goog:chromeOptions": {"args": arguments}, "timeouts": {"script": 120_000}});
        let mut browser = Self { _driver: driver, port, session: "/session".to_owned() };
        let session = browser.post("", &json!({"capabilities": {"alwaysMatch": options}}))?;
        browser.session += &format!("/{}", session["sessionId"].as_str().context("no session")?);
        Ok(browser)
    }

    fn send(&self, method: &str, command: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        let host = format!("127.0.0.1:{}", self.port);
        Ok(value(&exchange(stream, method, &host, &format!("{}{command}", self.session), body)?))
    }

    fn post(&self, command: &str, body: &Value) -> anyhow::Result<Value> {
        self.send("POST", command, Some(body))
    }

    /// Opens a page, and waits until it is loaded.
    pub fn open(&self, url: &str) -> anyhow::Result<()> {
        self.post("/url", &json!({"url": url})).map(drop)
    }

    /// Runs a script in the page, and returns its result.
    pub fn run(&self, script: &str) -> anyhow::Result<Value> {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Runs a script that calls the function `done` with its result.
    pub fn run_async(&self, script: &str) -> anyhow::Result<Value> {
        let script = format!("const done = arguments[arguments.length - 1]; {script}");
        self.post("/execute/async", &json!({"script": script, "args": []}))
    }

    /// Sends a command of the Chrome DevTools Protocol.
    pub fn devtools(&self, command: &str, params: &Value) -> anyhow::Result<Value> {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": params}))
    }

    /// Takes a picture of the page.
    pub fn picture(&self, params: &Value) -> anyhow::Result<Vec<u8>> {
        let taken = self.devtools("Page.captureScreenshot", params)?;
        Ok(STANDARD.decode(taken["data"].as_str().context("no picture")?)?)
    }

    /// Waits until a script returns true.
    pub fn wait(&self, within: Duration, script: &str) -> anyhow::Result<()> {
        let end = Instant::now() + within;
        while self.run(script)? != json!(true) {
            anyhow::ensure!(Instant::now() < end, "not within {within:?}: {script}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Without its session, the driver leaves the browser behind.
        let _ = self.send("DELETE", "", None);
    }
}
