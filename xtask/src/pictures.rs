//! The pictures of the README and the book: a trace of a server that is sometimes busy, its report, and screenshots
//! of it in a browser.

mod traffic;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{cmd, packages, tcptrace};

/// A picture: its file in docs/src/, its size, its place on the page, and whether it is dark.
struct Picture {
    file: &'static str,
    size: (u32, u32),
    /// Opens a connection with this verdict, or the overview if `None`.
    verdict: Option<&'static str>,
    dark: bool,
}

const PICTURES: [Picture; 2] = [
    Picture {
        file: "report.png",
        size: (1180, 830),
        verdict: None,
        dark: false,
    },
    Picture {
        file: "report-connection.png",
        size: (1080, 800),
        verdict: Some("queued"),
        dark: true,
    },
];

#[derive(clap::Args)]
pub struct Args {
    /// Install the browser if it is missing
    #[arg(long)]
    install: bool,
    /// Use this recording instead of making one
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
}

pub fn run(root: &Path, args: &Args) -> Result<()> {
    if args.install {
        packages::install(&packages::BROWSER)?;
    }
    let program = tcptrace::build(root)?;
    let folder = root.join("target/pictures");
    fs::create_dir_all(&folder)?;
    let recording = match &args.recording {
        Some(file) => file.clone(),
        None => record(&program, &folder)?,
    };
    let page = folder.join("report.html");
    cmd::run(
        Command::new(&program)
            .arg("report")
            .arg(&recording)
            .arg("-o")
            .arg(&page),
    )?;
    for picture in &PICTURES {
        let hash = match picture.verdict {
            None => String::new(),
            Some(verdict) => format!("#conn={}", longest_wait(&program, &recording, verdict)?),
        };
        let file = root.join("docs/src").join(picture.file);
        take(picture, &page, &hash, &folder, &file)?;
        let size = fs::metadata(&file)?.len();
        println!("{}: {size} bytes", file.display());
    }
    Ok(())
}

/// Traces the traffic.
fn record(program: &Path, folder: &Path) -> Result<PathBuf> {
    let file = folder.join("demo.trace");
    let servers = traffic::Servers::open()?;
    let mut tracer = cmd::as_root(program)?;
    tracer
        .args(["-o", "json", "--segments", "-p", &servers.ports()])
        .arg("--write")
        .arg(&file)
        .stdout(Stdio::piped());
    let mut tracer = tracer.spawn().context("cannot start tcptrace")?;
    let mut lines = BufReader::new(tracer.stdout.take().context("no pipe")?).lines();
    lines.next().context("tcptrace printed nothing")??;
    let reader = std::thread::spawn(move || lines.try_for_each(|line| line.map(drop)));
    servers.play()?;
    end(&mut tracer)?;
    reader.join().expect("the reader reads")?;
    Ok(file)
}

/// Sends SIGINT like Ctrl-C. sudo passes it on.
fn end(tracer: &mut Child) -> Result<()> {
    kill(Pid::from_raw(tracer.id() as i32), Signal::SIGINT)?;
    let status = tracer.wait()?;
    ensure!(status.success(), "tcptrace failed: {status}");
    Ok(())
}

/// Returns the connection with this verdict that waited longest.
fn longest_wait(program: &Path, recording: &Path, verdict: &str) -> Result<u64> {
    let mut replay = Command::new(program);
    replay.arg("replay").arg(recording).args(["-o", "json"]);
    let text = cmd::output(&mut replay)?;
    let ends = text.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let right = line["event"] == "connection" && line["verdict"] == verdict;
        right.then(|| Some((line["accept_queue_ns"].as_u64()?, line["conn"].as_u64()?)))?
    });
    let (_, conn) = ends.max().context("no connection has this verdict")?;
    Ok(conn)
}

fn take(picture: &Picture, page: &Path, hash: &str, folder: &Path, file: &Path) -> Result<()> {
    let (width, height) = picture.size;
    let scheme = if picture.dark { 0 } else { 1 };
    let output = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            // Waits until everything is drawn.
            "--run-all-compositor-stages-before-draw",
            "--virtual-time-budget=5000",
        ])
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
        .arg(format!(
            "--user-data-dir={}",
            folder.join("browser").display()
        ))
        .arg(format!("--window-size={width},{height}"))
        .arg(format!("--screenshot={}", file.display()))
        .arg(format!("file://{}{hash}", page.display()))
        .output()
        .context("cannot start chromium; cargo xtask pictures --install")?;
    ensure!(
        output.status.success() && file.exists(),
        "chromium took no picture: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
