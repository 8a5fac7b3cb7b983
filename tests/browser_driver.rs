//! A real browser: headless Chromium through its own driver, with a profile of its own. Both are gone at the end.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use thirtyfour::LoggingPrefsLogLevel;
use thirtyfour::prelude::*;

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A browser with one tab.
pub struct Browser {
    driver: WebDriver,
    server: Server,
    /// What pages may say without being wrong: an error that the test made happen.
    pub forgiven: Vec<&'static str>,
    _profile: tempfile::TempDir,
}

/// Whether there is a browser here. If there is none although `CI` is set, the test fails.
fn is_there() -> bool {
    let found = ["chromium", "chromedriver"].into_iter().all(|program| {
        let asked = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    });
    let required = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(found || !required, "CI is set, and chromium or chromedriver is not installed");
    found
}

/// Runs a test with a browser; says so where there is none.
pub fn with_browser<F: AsyncFnOnce(&mut Browser)>(test: F) {
    if !is_there() {
        println!("skipped: no Chromium");
        return;
    }
    // The driver is asked by plain HTTP, but its client wants to know who would encrypt. Another test may have said so.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut browser = Browser::start().await;
        test(&mut browser).await;
        browser.end().await;
    });
}

/// The driver's process. It ends with the test, however that ends.
struct Server(Child);

impl Server {
    fn of(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Browser {
    async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let port = free_port();
        let server = Server::of(
            Command::new("chromedriver")
                .arg(format!("--port={port}"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        let mut capabilities = DesiredCapabilities::chrome();
        let profile_argument = format!("--user-data-dir={}", profile.path().display());
        for argument in [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            &profile_argument,
        ] {
            capabilities.add_arg(argument).unwrap();
        }
        capabilities.set_browser_log_level(LoggingPrefsLogLevel::All).unwrap();
        let url = format!("http://127.0.0.1:{port}");
        // The driver takes a moment until it listens.
        for _ in 0..100 {
            if let Ok(driver) = WebDriver::new(&url, capabilities.clone()).await {
                return Self { driver, server, forgiven: Vec::new(), _profile: profile };
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("chromedriver does not answer");
    }

    /// Nothing was wrong on any page; then the browser and its driver end.
    async fn end(mut self) {
        let wrong: Vec<String> = self.complaints().await;
        self.driver.clone().quit().await.unwrap();
        drop(self.server);
        assert!(wrong.is_empty(), "the console says: {wrong:#?}");
    }

    /// What pages wrote to the console, but for what is forgiven.
    async fn complaints(&mut self) -> Vec<String> {
        let entries = self.driver.browser_log().await.unwrap();
        let texts = entries.into_iter().map(|entry| format!("{} {}", entry.level, entry.message));
        texts.filter(|text| !self.forgiven.iter().any(|known| text.contains(known))).collect()
    }

    /// Opens a page, and waits until its scripts have run.
    pub async fn open(&self, address: SocketAddr, path: &str) {
        self.driver.goto(format!("http://{address}{path}")).await.unwrap();
    }

    /// Leaves the page: a live one would miss a server that ends.
    pub async fn leave(&self) {
        self.driver.goto("about:blank").await.unwrap();
    }

    /// What a script in the page returns.
    pub async fn ask(&self, script: &str) -> Value {
        let answer = self.driver.execute(script, Vec::new()).await;
        answer.unwrap_or_else(|error| panic!("{script}: {error}")).json().clone()
    }

    /// What a script in the page hands over in the end.
    pub async fn ask_later(&self, script: &str) -> Value {
        let answer = self.driver.execute_async(script, Vec::new()).await;
        answer.unwrap_or_else(|error| panic!("{script}: {error}")).json().clone()
    }

    /// Waits until a script in the page returns true.
    pub async fn until(&self, what: &str, script: &str) {
        for _ in 0..300 {
            // While a page is being left there is none to be asked.
            if let Ok(answer) = self.driver.execute(script, Vec::new()).await
                && answer.json() == &Value::Bool(true)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never happened: {what}: {}", self.text().await);
    }

    /// All text that is to be seen.
    pub async fn text(&self) -> String {
        self.ask("return document.body.innerText").await.as_str().unwrap_or_default().to_owned()
    }

    /// Clicks on the first thing that a selector finds.
    pub async fn click(&self, selector: &str) {
        let mut last = None;
        // A live page may put another in its place just then; a person clicks again.
        for _ in 0..50 {
            match self.try_click(selector).await {
                Ok(()) => return,
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // The driver's own stack says nothing, and is long.
        let last: String = format!("{last:?}").chars().take(200).collect();
        panic!("{selector}: {last}: {}", self.text().await);
    }

    async fn try_click(&self, selector: &str) -> WebDriverResult<()> {
        self.driver.find(By::Css(selector)).await?.click().await
    }

    /// Types into whatever has the focus, as a keyboard does: a live page may put another element in its place at any time.
    pub async fn type_keys(&self, keys: &str) {
        self.driver.action_chain().send_keys(keys).perform().await.unwrap();
    }

    /// A command of the browser's own.
    pub async fn tell(&self, command: &str, parameters: Value) {
        self.driver.cdp().send_raw(command, parameters).await.unwrap();
    }

    /// Nodes of documents, and bytes that scripts hold, after what is not used any more was thrown away.
    pub async fn weight(&self) -> (u64, u64) {
        self.tell("HeapProfiler.collectGarbage", json!({})).await;
        let counted = self.driver.cdp().send_raw("Memory.getDOMCounters", json!({})).await.unwrap();
        let heap = self.driver.cdp().send_raw("Runtime.getHeapUsage", json!({})).await.unwrap();
        (counted["nodes"].as_u64().unwrap(), heap["usedSize"].as_f64().unwrap() as u64)
    }

    /// The size of the window, in pixels.
    pub async fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.tell("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// What the reader's system prefers.
    pub async fn scheme(&self, scheme: &str) {
        let feature = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.tell("Emulation.setEmulatedMedia", feature).await;
    }
}
