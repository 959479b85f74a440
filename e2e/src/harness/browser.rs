//! A real Chromium on this machine, driven over WebDriver: it opens a page, presses keys, and tells what it sees.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use thirtyfour::{ChromeCapabilities, ChromiumLikeCapabilities, LoggingPrefsLogLevel, WebDriver};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Without these Chromium asks its maker's hosts at every start. The sandbox is refused to root.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
];
/// How long the browser may take to start: less than a second when nothing else runs.
const STARTS: Duration = Duration::from_secs(30);

/// One browser with an empty profile and one window; it ends with this value.
pub struct Browser {
    // First: its end asks the driver to close the window.
    window: WebDriver,
    _driver: Child,
}

/// How a page looks.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// In CSS pixels.
    pub width: u32,
    /// In CSS pixels.
    pub height: u32,
    /// Device pixels for one of CSS.
    pub scale: f64,
    /// Whether the user prefers dark colours.
    pub dark: bool,
}

impl Browser {
    /// Starts chromedriver, and a Chromium of its own.
    pub async fn start() -> anyhow::Result<Self> {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start chromedriver: install Debian's packages chromium and chromium-driver")?;
        let port = timeout(STARTS, port(&mut driver)).await.context("chromedriver does not start")??;
        let mut wishes = ChromeCapabilities::new();
        for flag in FLAGS {
            wishes.add_arg(flag)?;
        }
        wishes.set_browser_log_level(LoggingPrefsLogLevel::All)?;
        // chromedriver gives each session a profile of its own and removes it.
        let window = timeout(STARTS, WebDriver::new(format!("http://127.0.0.1:{port}"), wishes))
            .await
            .context("Chromium does not start")?
            .context("cannot start Chromium: install Debian's package chromium")?;
        Ok(Self { window, _driver: driver })
    }

    /// Opens a page and waits until it is loaded.
    pub async fn open(&self, url: &str) -> anyhow::Result<()> {
        self.window.goto(url).await.with_context(|| format!("cannot open {url}"))
    }

    /// Presses keys, wherever the focus is.
    pub async fn press(&self, keys: &str) -> anyhow::Result<()> {
        Ok(self.window.action_chain().send_keys(keys).perform().await?)
    }

    /// Runs the body of a function in the page; what it returns comes back.
    pub async fn ask(&self, script: &str, arguments: Vec<Value>) -> anyhow::Result<Value> {
        Ok(self.window.execute(script, arguments).await?.json().clone())
    }

    /// The text of what a selector finds first; empty when it finds nothing.
    pub async fn text(&self, selector: &str) -> anyhow::Result<String> {
        let script = "return document.querySelector(arguments[0])?.textContent ?? ''";
        let text = self.ask(script, vec![json!(selector)]).await?;
        Ok(text.as_str().unwrap_or_default().trim().to_owned())
    }

    /// An attribute of what a selector finds first.
    pub async fn attribute(&self, selector: &str, name: &str) -> anyhow::Result<Option<String>> {
        let script = "return document.querySelector(arguments[0])?.getAttribute(arguments[1]) ?? null";
        let value = self.ask(script, vec![json!(selector), json!(name)]).await?;
        Ok(value.as_str().map(str::to_owned))
    }

    /// What the page's console said that is more than information, since the last time it was asked.
    pub async fn complaints(&self) -> anyhow::Result<Vec<String>> {
        let log = self.window.browser_log().await?;
        let complaints = log.into_iter().filter(|entry| matches!(entry.level.as_str(), "SEVERE" | "WARNING"));
        Ok(complaints.map(|entry| format!("{}: {}", entry.level, entry.message)).collect())
    }

    /// A picture of the page as somebody sees it that has such a screen.
    pub async fn picture(&self, look: Look, path: &Path) -> anyhow::Result<()> {
        let Look { width, height, scale, dark } = look;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        let emulated = self.window.cdp();
        emulated.send_raw("Emulation.setEmulatedMedia", json!({"features": features})).await?;
        emulated.emulation().set_device_metrics_override(width, height, scale, false).await?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        self.window.screenshot(path).await.with_context(|| format!("cannot write {}", path.display()))
    }

    /// Closes the window.
    pub async fn close(self) -> anyhow::Result<()> {
        Ok(self.window.quit().await?)
    }
}

/// Where pictures go.
pub fn pictures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/e2e")
}

/// The port that the driver has chosen, as it says itself.
async fn port(driver: &mut Child) -> anyhow::Result<u16> {
    let out = driver.stdout.take().context("chromedriver has no standard output")?;
    let mut lines = BufReader::new(out).lines();
    while let Some(line) = lines.next_line().await? {
        let said = line.split_once("started successfully on port ");
        if let Some(port) = said.and_then(|(_, port)| port.trim_end_matches('.').parse().ok()) {
            // It may say more, and must not stop because nobody reads it.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(port);
        }
    }
    anyhow::bail!("chromedriver ended without a word of its port")
}
