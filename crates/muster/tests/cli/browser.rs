//! Headless Chromium, which chromedriver controls over WebDriver (W3C).

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A browser without a window.
pub struct Browser {
    driver: Child,
    session: String,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Browser {
    /// Starts it.
    pub fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("chromedriver is missing: `./check` installs it (Debian package chromium-driver)");
        let output = BufReader::new(driver.stdout.take().unwrap());
        let port = |line: String| line.split_once("successfully on port ").map(|(_, port)| port.to_owned());
        let port = output.lines().map_while(Result::ok).find_map(port).expect("chromedriver prints its port");
        let port = port.trim_end_matches('.').to_owned();
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let mut browser = Self { driver, session: format!("http://127.0.0.1:{port}/session"), client, runtime };
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
        // The server's certificate is of its own CA.
        let options = json!({
            "acceptInsecureCerts": true, "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "SEVERE"}, "timeouts": {"script": 120_000},
        });
        let session = browser.post("", &json!({"capabilities": {"alwaysMatch": options}}));
        browser.session += &format!("/{}", session["sessionId"].as_str().unwrap());
        browser
    }

    fn post(&self, command: &str, body: &Value) -> Value {
        let request = self.client.post(format!("{}{command}", self.session)).json(body);
        let answer = async { request.send().await?.json::<Value>().await };
        let answer = self.runtime.block_on(answer).unwrap();
        assert!(answer["value"].get("error").is_none(), "{command}: {answer}");
        answer["value"].clone()
    }

    /// Opens a page, and waits until it is loaded.
    pub fn open(&self, url: &str) {
        self.post("/url", &json!({"url": url}));
    }

    /// Runs a script in the page, and returns its result; the policy of the page applies to the page's own scripts only.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Runs a script that calls the function `done` with its result.
    pub fn run_async(&self, script: &str) -> Value {
        let script = format!("const done = arguments[arguments.length - 1]; {script}");
        self.post("/execute/async", &json!({"script": script, "args": []}))
    }

    /// Sends a command of the Chrome DevTools Protocol.
    pub fn devtools(&self, command: &str, params: &Value) -> Value {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": params}))
    }

    /// Returns the errors that the console has shown since the last call.
    pub fn console_errors(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({"type": "browser"}));
        entries.as_array().unwrap().iter().map(|entry| entry["message"].to_string()).collect()
    }

    /// Presses the key `Tab` this many times.
    pub fn press_tab(&self, times: usize) {
        let press = |kind: &str| json!({"type": kind, "value": "\u{e004}"});
        let presses: Vec<Value> = (0..times).flat_map(|_| [press("keyDown"), press("keyUp")]).collect();
        self.post("/actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": presses}]}));
    }

    /// Returns the text of the page, as a person sees it.
    pub fn text(&self) -> String {
        self.run("return document.body.innerText").as_str().unwrap().to_owned()
    }

    /// Sets a field of a form.
    pub fn fill(&self, selector: &str, value: &str) {
        let script = "document.querySelector(arguments[0]).value = arguments[1]";
        self.post("/execute/sync", &json!({"script": script, "args": [selector, value]}));
    }

    /// Clicks an element.
    pub fn click(&self, selector: &str) {
        let found = self.post("/element", &json!({"using": "css selector", "value": selector}));
        let id = found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned();
        self.post(&format!("/element/{id}/click"), &json!({}));
    }

    /// Presses and releases keys, one after the other, in the element that has the focus.
    pub fn press(&self, keys: &str) {
        let events: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()})))
            .collect();
        self.post("/actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": events}]}));
    }

    /// Presses Tab until the element has the focus: it can be reached without a mouse.
    #[track_caller]
    pub fn tab_to(&self, selector: &str) {
        let script = "return document.activeElement === document.querySelector(arguments[0])";
        for _ in 0..100 {
            self.press("\u{e004}");
            if self.post("/execute/sync", &json!({"script": script, "args": [selector]})) == json!(true) {
                return;
            }
        }
        panic!("Tab does not reach {selector}\n{}", self.text());
    }

    /// Waits until a script returns true.
    #[track_caller]
    pub fn wait(&self, within: Duration, script: &str) {
        let end = Instant::now() + within;
        while self.run(script) != json!(true) {
            assert!(Instant::now() < end, "not within {within:?}: {script}\n{}", self.text());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Without its session, the driver leaves the browser behind.
        let _ = self.runtime.block_on(self.client.delete(&self.session).send());
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
