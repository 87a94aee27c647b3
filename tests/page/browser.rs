//! A browser that is controlled by WebDriver (<https://www.w3.org/TR/webdriver2/>).

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::eventually;

/// A browser with one window.
pub struct Browser {
    driver: Child,
    session: String,
    _profile: TempDir,
}

/// Keys that have no character.
pub mod key {
    pub const ENTER: char = '\u{e007}';
    pub const ESCAPE: char = '\u{e00c}';
    pub const RIGHT: char = '\u{e014}';
    pub const DOWN: char = '\u{e015}';
    pub const END: char = '\u{e010}';
}

impl Browser {
    pub fn start() -> Browser {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's package chromium-driver is there; cargo xtask test --install");
        let stdout = BufReader::new(driver.stdout.take().expect("a pipe"));
        let port = stdout.lines().find_map(|line| {
            let line = line.expect("a line from chromedriver");
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.expect("the port in chromedriver's output");
        let profile = tempfile::tempdir().expect("a folder");
        let mut browser = Browser {
            driver,
            session: format!("http://127.0.0.1:{port}/session"),
            _profile: profile,
        };
        let folder = browser._profile.path().display();
        let args = [
            "--headless",
            // The sandbox refuses root. The browser shows only our own files.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,900",
            &format!("--user-data-dir={folder}"),
        ];
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": {"args": args},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let answer = browser.post("", json!({"capabilities": {"alwaysMatch": wanted}}));
        let id = answer["sessionId"].as_str().expect("a session");
        browser.session = format!("{}/{id}", browser.session);
        browser
    }

    /// Opens a page of this file, at `#hash`, and waits until it has drawn itself.
    pub fn open(&self, file: &Path, hash: &str) {
        // A change of only the hash would not load the page again.
        self.go("about:blank");
        let name = file.file_name().expect("a file").to_string_lossy();
        let name: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let folder = file.parent().expect("a folder").display();
        self.go(&format!("file://{folder}/{name}#{hash}"));
        self.wait(
            "document.documentElement.dataset.ready || !document.getElementById('failure').hidden",
        );
    }

    pub fn go(&self, url: &str) {
        self.post("/url", json!({"url": url}));
    }

    /// Returns the value of a JavaScript expression.
    pub fn get(&self, expression: &str) -> Value {
        let script = format!("return ({expression});");
        self.post("/execute/sync", json!({"script": script, "args": []}))
    }

    /// Returns the value of a JavaScript expression that is a text.
    pub fn text(&self, expression: &str) -> String {
        match self.get(expression) {
            Value::String(text) => text,
            other => panic!("{expression} is {other}"),
        }
    }

    /// Waits until a JavaScript expression is true.
    pub fn wait(&self, expression: &str) {
        let truth = format!("Boolean({expression})");
        eventually(expression, || (self.get(&truth) == true).then_some(()));
    }

    /// Presses keys at the current focus.
    pub fn keys(&self, keys: &str) {
        let actions = keys.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()}))
        });
        let actions: Vec<Value> = actions.collect();
        let source = json!({"type": "key", "id": "keyboard", "actions": actions});
        self.post("/actions", json!({"actions": [source]}));
    }

    /// Clicks on the first element of a CSS selector.
    pub fn click(&self, selector: &str) {
        let using = json!({"using": "css selector", "value": selector});
        let element = self.post("/element", using);
        let id = element.as_object().and_then(|it| it.values().next());
        let id = id.and_then(Value::as_str).expect("an element").to_owned();
        self.post(&format!("/element/{id}/click"), json!({}));
    }

    /// Types a search. Returns the page's answer.
    pub fn search(&self, text: &str) -> String {
        let input = "document.getElementById('search')";
        self.get(&format!(
            "({input}.value = {}, {input}.dispatchEvent(new Event('input')), \
             document.getElementById('search-result').textContent = '')",
            json!(text)
        ));
        self.wait("document.getElementById('search-result').textContent");
        self.text("document.getElementById('search-result').textContent")
    }

    /// Returns the messages of the browser's console since the last call, including violations of
    /// the page's policy.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({"type": "browser"}));
        let entries = log.as_array().expect("a log").iter();
        entries.map(|entry| entry["message"].to_string()).collect()
    }

    fn post(&self, path: &str, body: Value) -> Value {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .new_agent();
        let url = format!("{}{path}", self.session);
        let answer = agent.post(&url).send_json(body);
        let mut answer = answer.unwrap_or_else(|error| panic!("{path}: {error}"));
        let value: Value = answer.body_mut().read_json().expect("JSON");
        assert!(answer.status().is_success(), "{path}: {value}");
        value["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser. Ending only the driver would leave it behind.
        let _ = ureq::delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
