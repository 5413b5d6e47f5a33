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
    /// Whether clicks and fields go by the keyboard.
    has_no_mouse: bool,
}

const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const DELETE: &str = "\u{e017}";
const UP: &str = "\u{e013}";
const DOWN: &str = "\u{e015}";
const CONTROL: &str = "\u{e009}";
/// Maximum number of presses of Tab until an element has the focus.
const TABS: usize = 200;

/// Maximum number of attempts to start the driver.
const DRIVERS: u32 = 5;

/// Starts the driver; returns its port. `None` if it ended at once.
fn start_driver() -> Option<(Child, String)> {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        .stdout(Stdio::piped())
        .spawn()
        .expect("chromedriver is missing: `./check` installs it (Debian package chromium-driver)");
    let output = BufReader::new(driver.stdout.take().unwrap());
    let port = |line: String| line.split_once("successfully on port ").map(|(_, port)| port.to_owned());
    match output.lines().map_while(Result::ok).find_map(port) {
        Some(port) => Some((driver, port.trim_end_matches('.').to_owned())),
        None => {
            driver.wait().unwrap();
            None
        }
    }
}

impl Browser {
    /// Starts it.
    pub fn start() -> Self {
        // It listens on the same port of both families of addresses, and ends if another program has one of them.
        let (driver, port) = (0..DRIVERS).find_map(|_| start_driver()).expect("chromedriver prints its port");
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let mut browser =
            Self { driver, session: format!("http://127.0.0.1:{port}/session"), client, runtime, has_no_mouse: false };
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

    /// Starts it without a mouse: what is clicked or filled in is reached with Tab, and pressed or typed.
    pub fn by_keyboard() -> Self {
        let mut browser = Self::start();
        browser.has_no_mouse = true;
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
        self.press(&TAB.repeat(times));
    }

    /// Returns the text of the page, as a person sees it.
    pub fn text(&self) -> String {
        self.run("return document.body.innerText").as_str().unwrap().to_owned()
    }

    /// Runs a script with an argument.
    fn run_with(&self, script: &str, argument: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": [argument]}))
    }

    /// Sets a field of a form.
    #[track_caller]
    pub fn fill(&self, selector: &str, value: &str) {
        if self.has_no_mouse {
            return self.type_into(selector, value);
        }
        let script = "document.querySelector(arguments[0]).value = arguments[1]";
        self.post("/execute/sync", &json!({"script": script, "args": [selector, value]}));
    }

    /// Chooses a file in a field of a form, as the dialog of the system does.
    pub fn choose_file(&self, selector: &str, path: &str) {
        let found = self.post("/element", &json!({"using": "css selector", "value": selector}));
        let id = found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned();
        self.post(&format!("/element/{id}/value"), &json!({"text": path}));
    }

    /// Clicks an element.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        if self.has_no_mouse {
            self.tab_to(selector);
            let is_box = self.run("return ['checkbox', 'radio'].includes(document.activeElement.type)") == json!(true);
            return self.press(if is_box { " " } else { ENTER });
        }
        let found = self.post("/element", &json!({"using": "css selector", "value": selector}));
        let id = found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned();
        self.post(&format!("/element/{id}/click"), &json!({}));
    }

    /// Types into a field, or chooses an option with the arrow keys.
    #[track_caller]
    fn type_into(&self, selector: &str, value: &str) {
        self.tab_to(selector);
        let steps = "const field = document.activeElement;
            return field.options ? [...field.options].findIndex(one => one.value === arguments[0]) - field.selectedIndex : null";
        match self.run_with(steps, value).as_i64() {
            Some(steps) => {
                let key = if steps < 0 { UP } else { DOWN };
                self.press(&key.repeat(usize::try_from(steps.unsigned_abs()).unwrap()));
            }
            None if self.run("return document.activeElement.type === 'datetime-local'") == json!(true) => {
                self.press(&date_keys(value));
            }
            None => {
                self.send_keys(&[("keyDown", CONTROL), ("keyDown", "a"), ("keyUp", "a"), ("keyUp", CONTROL)]);
                self.press(&if value.is_empty() { DELETE.to_owned() } else { value.replace('\n', ENTER) });
            }
        }
        assert_eq!(self.run("return document.activeElement.value"), json!(value), "{selector}");
    }

    /// Presses and releases keys, one after the other, in the element that has the focus.
    pub fn press(&self, keys: &str) {
        let keys: Vec<String> = keys.chars().map(String::from).collect();
        let events: Vec<_> =
            keys.iter().flat_map(|key| ["keyDown", "keyUp"].map(|kind| (kind, key.as_str()))).collect();
        self.send_keys(&events);
    }

    fn send_keys(&self, events: &[(&str, &str)]) {
        let events: Vec<Value> = events.iter().map(|(kind, key)| json!({"type": kind, "value": key})).collect();
        self.post("/actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": events}]}));
    }

    /// Presses Tab until the element has the focus: it can be reached without a mouse, and people see where they are.
    #[track_caller]
    pub fn tab_to(&self, selector: &str) {
        for _ in 0..TABS {
            match self.run_with(FOCUS, selector) {
                Value::Null => self.press(TAB),
                fault => return assert_eq!(fault, json!(""), "{selector} has the focus"),
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

/// Returns the keys that type a time, such as `2020-01-31T14:05`, into the parts of its field: the order is that of an American browser.
fn date_keys(time: &str) -> String {
    let (date, clock) = time.split_once('T').unwrap();
    let [year, month, day] = date.split('-').collect::<Vec<_>>().try_into().unwrap();
    let (hour, minute) = clock.split_once(':').unwrap();
    let hour: u32 = hour.parse().unwrap();
    let half = if hour < 12 { "a" } else { "p" };
    // A year can have more digits.
    format!("{month}{day}{year}{TAB}{:02}{minute}{half}", (hour + 11) % 12 + 1)
}

/// Null until an element has the focus; then why people would not see it.
const FOCUS: &str = "
    const element = document.querySelector(arguments[0]);
    if (!element || element !== document.activeElement) return null;
    const box = element.getBoundingClientRect();
    if (box.bottom <= 0 || box.top >= innerHeight || box.right <= 0 || box.left >= innerWidth) return 'outside of the window';
    for (let one = element; one; one = one.parentElement) {
        const style = getComputedStyle(one);
        if (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0) return '';
    }
    return 'without an outline';";

impl Drop for Browser {
    fn drop(&mut self) {
        // Without its session, the driver leaves the browser behind.
        let _ = self.runtime.block_on(self.client.delete(&self.session).send());
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
