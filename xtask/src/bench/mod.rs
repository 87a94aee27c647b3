//! How much a tracer slows what it watches: tcptrace and its peers beside the same loads.
//!
//! Runs are interleaved: in each round every row is run once, in an order that rotates, between two
//! untraced runs that it is compared with, because machines have moods. The untraced row is run
//! so as well: how far its share is from 1 tells what the others are worth.

mod balance;
mod load;
mod machine;
mod netns;
mod programs;
mod report;
mod rows;
mod smoke;
mod spread;
mod table;
mod terminal;
mod watcher;

use std::{
    env, fs,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Error, Result, bail};
use clap::builder::PossibleValuesParser;

pub use self::smoke::smoke;
use self::{
    machine::{Machine, TRACEFS},
    report::{Report, Run},
    rows::{Load, Object, ROWS, Row, UNTRACED, Watcher},
    watcher::{HOLLOW, Running},
};
use crate::{cmd, ebpf, packages, tcptrace};

#[derive(clap::Args)]
pub struct Args {
    /// How often each row is run
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How long each load is counted
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Only these rows, and the untraced one
    #[arg(
        long,
        value_name = "ROW",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(ROWS.iter().map(|row| row.name))
    )]
    only: Vec<String>,
    /// Only these loads
    #[arg(long, value_name = "LOAD", value_delimiter = ',')]
    load: Vec<Load>,
    /// Where the figures go as JSON [target/bench/bench.json]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write BENCHMARKS.md
    #[arg(long)]
    write: bool,
    /// Install Debian's libbpf-tools, bpftrace and tcpdump to measure against
    #[arg(long)]
    install_peers: bool,
    /// Where tcptrace and storm were built, for this program's own use as root
    #[arg(long, hide = true)]
    built: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.1 to 3600".into()),
    }
}

/// Why a peer is not measured.
const ABSENT: &str = "not installed";

/// The programs that are run.
struct Programs {
    tcptrace: PathBuf,
    storm: PathBuf,
}

/// Builds, measures, prints, writes.
pub fn run(root: &Path, args: &Args) -> Result<()> {
    if args.install_peers {
        packages::install(&rows::PACKAGES)?;
    }
    let folder = match &args.built {
        Some(folder) => folder.clone(),
        None => build(root, args)?,
    };
    if let Some(sudo) = cmd::sudo()? {
        return Err(again_as_root(sudo, &folder)?);
    }
    let programs = Programs {
        tcptrace: folder.join("tcptrace"),
        storm: folder.join("storm"),
    };
    let results = root.join("target/bench");
    fs::create_dir_all(&results).with_context(|| format!("cannot make {}", results.display()))?;
    let machine = Machine::look(packages::versions(&rows::PACKAGES));
    if let Some(load @ 0.5..) = machine.load_average {
        eprintln!("xtask: this machine is busy (load average {load}): expect noise");
    }
    for instance in &machine.ftrace {
        eprintln!(
            "xtask: ftrace records inet_sock_set_state, which every row pays for: {instance}"
        );
    }
    if !Path::new(TRACEFS).join("events").exists() {
        eprintln!("xtask: no tracefs, which peers need: `sudo mount -t tracefs tracefs {TRACEFS}`");
    }
    fs::write(results.join(HOLLOW), ebpf::hollow(root)?)?;
    let report = measure(root, args, machine, &programs, &results)?;
    println!("{}", report.tables());
    let output = args.output.clone();
    let output = output.unwrap_or_else(|| results.join("bench.json"));
    write(&output, &serde_json::to_string_pretty(&report)?)?;
    if args.write {
        write(&root.join("BENCHMARKS.md"), &report.document())?;
    }
    let ours = |(row, _): &&(String, String)| !is_peer(row);
    if let Some((row, why)) = report.failed.iter().find(ours) {
        bail!("{row}: {why}");
    }
    Ok(())
}

fn build(root: &Path, args: &Args) -> Result<PathBuf> {
    // An ordinary build loads no object but its own.
    let is_hollow = |row: &Row| {
        matches!(
            row.watcher,
            Watcher::Tcptrace {
                object: Object::Hollow,
                ..
            }
        )
    };
    let mut wanted = ROWS.iter().filter(|row| is_wanted(row, args));
    let features: &[&str] = match wanted.any(is_hollow) {
        true => &["--features", "diagnostics"],
        false => &[],
    };
    let tcptrace = tcptrace::build_with(root, features)?;
    let storm = ["build", "--quiet", "--release", "--package", "bench"];
    cmd::run(cmd::cargo(root).args(storm))?;
    let folder = tcptrace.parent().context("tcptrace lies in no folder")?;
    Ok(folder.to_path_buf())
}

fn is_wanted(row: &Row, args: &Args) -> bool {
    row.name == UNTRACED || args.only.is_empty() || args.only.iter().any(|it| it == row.name)
}

/// Becomes the same command as root; returns only when that fails.
fn again_as_root(sudo: &str, built: &Path) -> Result<Error> {
    let mut command = Command::new(sudo);
    command
        .args(["--preserve-env", "--"])
        .arg(env::current_exe()?)
        .args(env::args_os().skip(1))
        .arg("--built")
        .arg(built);
    let error = command.exec();
    Ok(Error::new(error).context(format!("cannot start `{}`", cmd::line(&command))))
}

fn is_peer(row: &str) -> bool {
    Row::named(row).is_some_and(|row| matches!(row.watcher, Watcher::Peer { .. }))
}

fn measure(
    root: &Path,
    args: &Args,
    machine: Machine,
    programs: &Programs,
    folder: &Path,
) -> Result<Report> {
    let (mut rows, mut failed) = (vec![], vec![]);
    for row in ROWS.iter().filter(|row| is_wanted(row, args)) {
        match row.program(&programs.tcptrace) {
            Some(program) => rows.push((row, program)),
            None if args.only.is_empty() => failed.push((row.name.to_owned(), ABSENT.to_owned())),
            None => bail!("{} is {ABSENT}; see --install-peers", row.name),
        }
    }
    let is_wanted = |load: &Load| args.load.is_empty() || args.load.contains(load);

    let mut report = Report {
        machine,
        version: version(root),
        rounds: args.rounds.into(),
        seconds: args.seconds,
        runs: vec![],
        programs: vec![],
        failed,
    };
    for round in 1..=report.rounds {
        for load in rows::ALL.iter().copied().filter(is_wanted) {
            let mut turns: Vec<_> = rows
                .iter()
                .filter(|(row, _)| row.loads.contains(&load))
                .collect();
            // With the untraced row alone there is nothing to compare.
            if turns.len() < 2 && !args.only.is_empty() {
                continue;
            }
            let turn = round % turns.len();
            turns.rotate_left(turn);
            let untraced = || untraced(load, programs, args.seconds);
            let mut before = untraced()?;
            for (row, program) in turns {
                if report.failed.iter().any(|(name, _)| name == row.name) {
                    continue;
                }
                eprintln!(
                    "round {round} of {}: {}, {}",
                    report.rounds,
                    load.name(),
                    row.name
                );
                let (rate, cost) = match once(row, program, load, programs, folder, args.seconds) {
                    Ok(measured) => measured,
                    Err(error) if row.name == UNTRACED => return Err(error),
                    Err(error) => {
                        report
                            .failed
                            .push((row.name.to_owned(), format!("{error:#}")));
                        continue;
                    }
                };
                let after = untraced()?;
                report.runs.push(Run {
                    round,
                    load,
                    row: row.name,
                    rate,
                    share: rate / f64::midpoint(before, after),
                    cost,
                });
                before = after;
            }
        }
    }
    if is_wanted(&Load::Connections) && rows.len() > 1 {
        eprintln!("the eBPF programs, by the kernel's statistics");
        netns::enter()?;
        report.programs = programs::measure(&programs.tcptrace, &programs.storm, args.seconds)?;
    }
    Ok(report)
}

/// A load that nobody watches: its operations a second.
fn untraced(load: Load, programs: &Programs, seconds: f64) -> Result<f64> {
    netns::enter()?;
    load::play(&programs.storm, load, seconds)
}

/// One row under one load, in a network namespace of its own.
fn once(
    row: &Row,
    program: &Path,
    load: Load,
    programs: &Programs,
    folder: &Path,
    seconds: f64,
) -> Result<(f64, Option<watcher::Cost>)> {
    netns::enter()?;
    let running = match row.watcher {
        Watcher::Nobody => None,
        _ => Some(Running::start(row, program, folder)?),
    };
    let rate = load::play(&programs.storm, load, seconds)?;
    let cost = running.map(Running::stop).transpose()?;
    Ok((rate, cost))
}

/// The version of tcptrace, and the commit where there is git.
fn version(root: &Path) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut git = Command::new("git");
    git.current_dir(root)
        .args(["describe", "--always", "--dirty"])
        .stderr(Stdio::null());
    let commit = git.output().ok().filter(|output| output.status.success());
    let commit = commit.and_then(|output| String::from_utf8(output.stdout).ok());
    match commit {
        Some(commit) => format!("{version} ({})", commit.trim()),
        None => version.to_owned(),
    }
}

/// Writes a file that belongs to who called sudo.
fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    let id = |name| env::var(name).ok()?.parse().ok();
    if let (Some(uid), Some(gid)) = (id("SUDO_UID"), id("SUDO_GID")) {
        chown(path, Some(uid), Some(gid))?;
    }
    Ok(())
}
