//! Chromium, driven by node: found, or what of it is missing.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// The npm package that drives the browser; it brings none.
const DRIVER: &str = "playwright-core@1.65.0";
/// Debian's smallest browser.
const PACKAGE: &str = "chromium-headless-shell";
const BROWSERS: [&str; 4] = [PACKAGE, "chromium", "chromium-browser", "google-chrome"];
/// How long one script may take.
const SCRIPT_MAX: Duration = Duration::from_secs(300);

/// A browser and its driver.
pub struct Browser {
    program: PathBuf,
    driver: PathBuf,
}

impl Browser {
    /// Finds one. `None`, with exactly what is missing on standard error, where there is none and nothing may be installed.
    ///
    /// # Panics
    /// Where `CI=true` and it cannot be had: nothing is skipped there.
    pub fn find() -> Option<Self> {
        let asked = |key: &str, value: &str| env::var(key).is_ok_and(|said| said == value);
        let install = asked("CI", "true") || asked("STOWAGE_INSTALL", "1");
        let mut missing = Vec::new();
        let mut have = |what: &str, there: &dyn Fn() -> bool, commands: &[&[&str]]| {
            if install && !there() {
                commands.iter().for_each(|command| run(command));
            }
            if !there() {
                missing.push(format!(
                    "{what} ({})",
                    commands.iter().map(|c| c.join(" ")).collect::<Vec<_>>().join(" && ")
                ));
            }
        };
        // Two tests look at once, and apt has one lock.
        static FINDING: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _finding = FINDING.lock().unwrap();
        let driver = cache();
        let folder = driver.to_string_lossy().into_owned();
        let apt = ["apt-get", "install", "--yes", "--no-install-recommends"];
        have(
            "node",
            &|| on_path("node").is_some(),
            &[&["apt-get", "update"], &[&apt[..], &["nodejs", "npm"]].concat()],
        );
        have(
            "a Chromium",
            &|| chromium().is_some(),
            &[&["apt-get", "update"], &[&apt[..], &[PACKAGE]].concat()],
        );
        let npm = ["npm", "install", "--silent", "--no-save", "--prefix", &folder, DRIVER];
        have(
            "playwright-core",
            &|| driver.join("node_modules/playwright-core/package.json").is_file(),
            &[&npm],
        );
        if missing.is_empty() {
            return Some(Self { program: chromium()?, driver });
        }
        assert!(!asked("CI", "true"), "the browser's tests need {}", missing.join(", "));
        eprintln!(
            "The browser's tests were left out. Missing: {}. STOWAGE_INSTALL=1 installs it.",
            missing.join(", ")
        );
        None
    }

    /// Runs a script of `browser.mjs`; whatever it asks to be bound is.
    ///
    /// # Panics
    /// Where the script does not end well.
    pub async fn run(&self, script: &str, url: &str, bind: impl AsyncFn(&Value)) {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page");
        let images = env::var_os("STOWAGE_IMAGES").map(PathBuf::from);
        let out = images.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("page"));
        std::fs::create_dir_all(&out).unwrap();
        let mut child = tokio::process::Command::new("node")
            .arg(here.join("browser.mjs"))
            .args([script, url])
            .env("OUT", &out)
            .env("DRIVER", self.driver.join("node_modules/playwright-core"))
            .env("CHROMIUM", &self.program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let talk = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                // What is no JSON is said to people.
                let Ok(say) = serde_json::from_str::<Value>(&line) else {
                    println!("{line}");
                    continue;
                };
                bind(&say).await;
                stdin.write_all(b"done\n").await.unwrap();
            }
            child.wait().await.unwrap()
        };
        let ended = tokio::time::timeout(SCRIPT_MAX, talk).await.expect("the script ends");
        assert!(ended.success(), "the script {script} ended with {ended}; pictures are in {}", out.display());
    }
}

fn run(command: &[&str]) {
    let (program, arguments) = command.split_first().unwrap();
    let status = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(Stdio::null())
        .status();
    eprintln!("{}: {status:?}", command.join(" "));
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn chromium() -> Option<PathBuf> {
    let given = env::var_os("CHROMIUM").map(PathBuf::from).filter(|path| path.is_file());
    given.or_else(|| BROWSERS.into_iter().find_map(on_path))
}

/// Where the driver is kept, with what other tests have built.
fn cache() -> PathBuf {
    let home = || env::home_dir().unwrap_or_else(|| PathBuf::from("/root")).join(".cache");
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    cache.unwrap_or_else(home).join("stowage").join(DRIVER.replace('@', "-"))
}
