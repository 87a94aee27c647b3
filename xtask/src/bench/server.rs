//! A real server: nginx under wrk, with a new connection for each request, and with kept
//! connections.
//!
//! CPU time is the sum of nginx, wrk (the softirqs run in their time) and ksoftirqd.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::{
    load::PORT,
    rows::{HISTOGRAM, RECORD, Row, TCPDUMP, UNTRACED, find},
    spread::Spread,
    table::table,
    watcher::Running,
};
use crate::{
    cmd, netns,
    process::{cpu_seconds, spawn},
};

/// The watchers, in turn.
pub const ROWS: [&str; 4] = [UNTRACED, RECORD, HISTOGRAM, TCPDUMP];

const CONFIGURATION: &str = "\
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events { worker_connections 512; }
http {
    access_log off;
    keepalive_requests 1000000000;
    server { listen 127.0.0.1:7878 backlog=4096; location / { return 200 \"hello\\n\"; } }
}
";

/// How requests use connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Requests {
    Close,
    KeepAlive,
}

impl Requests {
    const ALL: [Requests; 2] = [Requests::Close, Requests::KeepAlive];

    fn name(self) -> &'static str {
        match self {
            Requests::Close => "Connection: close",
            Requests::KeepAlive => "keep-alive",
        }
    }
}

/// One run of a row under requests.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub requests: Requests,
    pub row: &'static str,
    /// CPU time of server and client per request, in microseconds.
    pub cpu_us: f64,
    /// Mean of the untraced runs right before and after, in microseconds per request.
    pub untraced_us: f64,
    /// CPU time of the tool per request, in microseconds.
    pub tool_us: f64,
    /// Latency of the 99th percentile, in milliseconds.
    pub p99_ms: f64,
    /// Mean 99th percentile of the untraced runs, in milliseconds.
    pub untraced_p99_ms: f64,
    pub lost: Option<u64>,
}

/// The measurements of wrk and of the clocks.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Played {
    cpu_us: f64,
    p99_ms: f64,
    requests: f64,
}

/// Whether nginx and wrk are installed.
pub fn is_here() -> bool {
    find("nginx").is_some() && find("wrk").is_some()
}

/// Runs every row once under both kinds of requests.
pub fn measure(tcptrace: &Path, folder: &Path, seconds: u64) -> Result<Vec<Run>> {
    let mut runs = vec![];
    for requests in Requests::ALL {
        netns::enter()?;
        let server = Server::start(folder)?;
        server.play(requests, 1)?;
        let mut before = server.play(requests, seconds)?;
        for name in ROWS {
            let row = Row::named(name).context("a row of the table")?;
            let Some(program) = row.program(tcptrace) else {
                continue;
            };
            let running = match name {
                UNTRACED => None,
                _ => match Running::start(row, &program, folder) {
                    Ok(running) => Some(running),
                    Err(_) => continue,
                },
            };
            let played = server.play(requests, seconds)?;
            let cost = running.map(Running::stop).transpose()?;
            let after = server.play(requests, seconds)?;
            let tool_s = cost.as_ref().map_or(0.0, |it| it.cpu_s);
            runs.push(Run {
                requests,
                row: row.name,
                cpu_us: played.cpu_us,
                untraced_us: f64::midpoint(before.cpu_us, after.cpu_us),
                tool_us: tool_s * 1e6 / played.requests,
                p99_ms: played.p99_ms,
                untraced_p99_ms: f64::midpoint(before.p99_ms, after.p99_ms),
                lost: cost.and_then(|it| it.lost),
            });
            before = after;
        }
    }
    Ok(runs)
}

/// nginx in one process. Killed when it is dropped.
struct Server(Child);

impl Server {
    fn start(folder: &Path) -> Result<Server> {
        let configuration = folder.join("nginx.conf");
        fs::write(&configuration, CONFIGURATION)?;
        let mut nginx = Command::new(find("nginx").context("nginx is not installed")?);
        nginx
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(&configuration)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut server = Server(spawn(&mut nginx)?);
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", PORT)).is_err() {
            if let Some(status) = server.0.try_wait()? {
                bail!("nginx ended at once, {status}");
            }
            if began.elapsed() > Duration::from_secs(10) {
                bail!("nginx does not listen");
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    fn play(&self, requests: Requests, seconds: u64) -> Result<Played> {
        let mut wrk = Command::new("wrk");
        wrk.args(["-t1", "-c8", "--latency"])
            .arg(format!("-d{seconds}s"));
        if requests == Requests::Close {
            wrk.args(["-H", "Connection: close"]);
        }
        wrk.arg(format!("http://127.0.0.1:{PORT}/"));
        let cpu =
            || Ok::<f64, anyhow::Error>(cpu_seconds(self.0.id())? + of_children()? + ksoftirqd());
        let before = cpu()?;
        let said = cmd::output(&mut wrk)?;
        let cpu_s = cpu()? - before;
        let (requests, p99_ms) =
            read(&said).with_context(|| format!("cannot parse the output of wrk: {said}"))?;
        Ok(Played {
            cpu_us: cpu_s * 1e6 / requests,
            p99_ms,
            requests,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both calls fail if nginx has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the CPU time of child processes that have been waited for.
fn of_children() -> Result<f64> {
    use nix::sys::{
        resource::{UsageWho, getrusage},
        time::TimeValLike as _,
    };
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let all = usage.user_time() + usage.system_time();
    Ok(all.num_microseconds() as f64 / 1e6)
}

/// Returns the CPU time of the kernel's threads for softirqs; 0 if they are not visible.
fn ksoftirqd() -> f64 {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let times = entries.filter_map(|entry| {
        let folder = entry.path();
        let name = fs::read_to_string(folder.join("comm")).ok()?;
        if !name.starts_with("ksoftirqd/") {
            return None;
        }
        let text = fs::read_to_string(folder.join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    times.sum::<f64>() / 1e9
}

/// Parses the number of requests and the 99th percentile, in milliseconds, from the output of `wrk
/// --latency`.
fn read(said: &str) -> Option<(f64, f64)> {
    let requests = said.lines().find_map(|line| {
        let (count, _) = line.trim().split_once(" requests in ")?;
        count.parse().ok()
    })?;
    let p99 = said.lines().find_map(|line| {
        let time = line.trim().strip_prefix("99%")?.trim();
        let (number, scale) = [("us", 1e-3), ("ms", 1.0), ("s", 1e3)]
            .iter()
            .find_map(|(unit, scale)| Some((time.strip_suffix(unit)?, scale)))?;
        Some(number.parse::<f64>().ok()? * scale)
    })?;
    Some((requests, p99))
}

/// Returns the section of BENCHMARKS.md.
pub fn section(runs: &[Run]) -> String {
    let mut rows = vec![];
    for requests in Requests::ALL {
        for name in ROWS {
            let of = |figure: fn(&Run) -> f64| {
                let mine = runs
                    .iter()
                    .filter(|it| it.requests == requests && it.row == name);
                Spread::of(mine.map(figure))
            };
            let Some(cpu) = of(|it| it.cpu_us) else {
                continue;
            };
            let cell = |spread: Option<Spread>, decimals| {
                spread.map_or("-".to_owned(), |it| it.show(decimals))
            };
            rows.push(vec![
                format!("{}, {name}", requests.name()),
                cpu.show(1),
                cell(of(|it| it.cpu_us - it.untraced_us), 1),
                cell(of(|it| it.tool_us), 1),
                cell(
                    of(|it| (it.cpu_us + it.tool_us) / it.untraced_us * 100.0 - 100.0),
                    1,
                ),
                cell(of(|it| it.p99_ms), 2),
                cell(of(|it| it.p99_ms / it.untraced_p99_ms * 100.0 - 100.0), 1),
            ]);
        }
    }
    let heading = [
        "requests, row",
        "server and client, µs",
        "more than untraced",
        "tool, µs",
        "more in all, %",
        "p99, ms",
        "more, %",
    ];
    format!(
        "## A real server: nginx under wrk\n\nCPU time a request, by `wrk -t1 -c8` and one nginx process. Each row is compared with the\n\
         untraced runs right before and after it.\n\n{}\n",
        table(&heading, &rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_output_is_parsed() {
        let said = "  Latency Distribution\n     50%  196.00us\n     99%    1.25ms\n\
            \x20 123456 requests in 5.10s, 19.10MB read\nRequests/sec:  24207.05\n";
        assert_eq!(read(said), Some((123_456.0, 1.25)));
        assert_eq!(
            read("     99%  980.00us\n 7 requests in 1.00s"),
            Some((7.0, 0.98))
        );
        assert_eq!(read("unable to connect"), None);
    }
}
