//! Measures the cost of tracing in CPU time: tcptrace and other tools under the same loads, see
//! [`report`].

mod balance;
mod load;
mod machine;
mod programs;
mod report;
mod rows;
mod server;
mod smoke;
mod spread;
mod table;
mod vm;
mod watcher;

use std::{
    env, fs,
    hash::{BuildHasher as _, RandomState},
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use clap::builder::PossibleValuesParser;

use self::{
    load::Load,
    machine::{Machine, TRACEFS},
    report::{Report, Run},
    rows::{ROWS, Row, UNTRACED, Watcher},
    watcher::{Cost, EMPTY_OBJECT, Running},
};
pub use self::{smoke::smoke, spread::Spread, table::table};
use crate::{cmd, ebpf, netns, packages, tcptrace};

#[derive(clap::Args)]
pub struct Args {
    /// Number of rounds; each runs every row once
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Connections of a run; the other loads are in proportion
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(10..))]
    connections: u32,
    /// Run only these rows, and the untraced one
    #[arg(
        long,
        value_name = "ROW",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(ROWS.iter().map(|row| row.name))
    )]
    only: Vec<String>,
    /// Run only these loads
    #[arg(long, value_name = "LOAD", value_delimiter = ',')]
    load: Vec<Load>,
    /// Leave out nginx under wrk
    #[arg(long)]
    no_server: bool,
    /// Write the figures as JSON to this file [target/bench/bench.json]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write BENCHMARKS.md
    #[arg(long)]
    write: bool,
    /// Install Debian's packages of the other tools, nginx and wrk
    #[arg(long)]
    install_peers: bool,
    /// Measure in a VM with this kernel: 5.10, 6.1, 6.12 or 6.18. The emulator provides its clock,
    /// so only the proportions are meaningful
    #[arg(long, value_name = "SERIES")]
    kernel: Option<String>,
    /// The folder of a built tcptrace; set by this program itself as root and in a VM
    #[arg(long, hide = true)]
    built: Option<PathBuf>,
}

/// The reason why a tool is not measured.
const NOT_INSTALLED: &str = "not installed";

/// Builds, measures, prints and writes the report.
pub fn run(root: &Path, args: &Args) -> Result<()> {
    if args.install_peers {
        packages::install(&rows::PACKAGES)?;
    }
    if let Some(series) = &args.kernel {
        return vm::run(root, series, args);
    }
    let folder = match &args.built {
        Some(folder) => folder.clone(),
        None => build(root, args)?,
    };
    if let Some(sudo) = cmd::sudo()? {
        return Err(cmd::again_as_root(sudo, &folder)?);
    }
    let tcptrace = folder.join("tcptrace");
    let results = root.join("target/bench");
    fs::create_dir_all(&results).with_context(|| format!("cannot make {}", results.display()))?;
    let machine = Machine::detect(packages::versions(&rows::PACKAGES));
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
    if ROWS
        .iter()
        .any(|row| row.has_empty_programs() && is_wanted(row, args))
    {
        fs::write(results.join(EMPTY_OBJECT), ebpf::empty(root)?)?;
    }
    let report = measure(root, args, machine, &tcptrace, &results)?;
    println!("{}", report.tables());
    let output = args.output.clone();
    let output = output.unwrap_or_else(|| results.join("bench.json"));
    write(&output, &serde_json::to_string_pretty(&report)?)?;
    if args.write {
        write(&root.join("BENCHMARKS.md"), &report.document())?;
    }
    let ours = |(row, _): &&(String, String)| Row::named(row).is_some_and(|it| !it.is_peer());
    if let Some((row, why)) = report.failed.iter().find(ours) {
        bail!("{row}: {why}");
    }
    Ok(())
}

fn build(root: &Path, args: &Args) -> Result<PathBuf> {
    // An ordinary build loads only its own object.
    let mut wanted = ROWS.iter().filter(|row| is_wanted(row, args));
    let features: &[&str] = match wanted.any(Row::has_empty_programs) {
        true => &["--features", "diagnostics"],
        false => &[],
    };
    let tcptrace = tcptrace::build_with(root, features)?;
    let folder = tcptrace.parent().context("tcptrace lies in no folder")?;
    Ok(folder.to_path_buf())
}

fn is_wanted(row: &Row, args: &Args) -> bool {
    row.name == UNTRACED || args.only.is_empty() || args.only.iter().any(|it| it == row.name)
}

fn measure(
    root: &Path,
    args: &Args,
    machine: Machine,
    tcptrace: &Path,
    folder: &Path,
) -> Result<Report> {
    let (mut rows, mut failed) = (vec![], vec![]);
    for row in ROWS.iter().filter(|row| is_wanted(row, args)) {
        match row.program(tcptrace) {
            Some(program) => rows.push((row, program)),
            None if args.only.is_empty() => {
                failed.push((row.name.to_owned(), NOT_INSTALLED.to_owned()))
            }
            None => bail!("{} is {NOT_INSTALLED}; see --install-peers", row.name),
        }
    }
    let mut report = Report {
        machine,
        version: version(root),
        rounds: args.rounds,
        connections: args.connections,
        runs: vec![],
        server: vec![],
        programs: vec![],
        failed,
    };
    let is_load_wanted = |load: &Load| args.load.is_empty() || args.load.contains(load);
    for round in 1..=args.rounds {
        for load in Load::ALL.into_iter().filter(is_load_wanted) {
            let mut turns: Vec<_> = rows
                .iter()
                .filter(|(row, _)| row.loads.contains(&load))
                .collect();
            shuffle(&mut turns);
            let mut before = once(None, load, args.connections)?.0;
            for (row, program) in turns {
                if report.failed.iter().any(|(name, _)| name == row.name) {
                    continue;
                }
                eprintln!(
                    "round {round} of {}: {}, {}",
                    args.rounds,
                    load.name(),
                    row.name
                );
                let watcher = Some((*row, program.as_path(), folder));
                let measured = once(watcher, load, args.connections);
                let (load_us, cost) = match measured {
                    Ok(measured) => measured,
                    Err(error) if row.name == UNTRACED => return Err(error),
                    Err(error) => {
                        let why = format!("{error:#}");
                        report.failed.push((row.name.to_owned(), why));
                        continue;
                    }
                };
                let (after, _) = once(None, load, args.connections)?;
                report.runs.push(Run {
                    round,
                    load,
                    row: row.name,
                    load_us,
                    untraced_us: f64::midpoint(before, after),
                    operations: load.operations(args.connections),
                    cost,
                });
                before = after;
            }
        }
        if !args.no_server && args.only.is_empty() && server::is_here() {
            eprintln!("round {round} of {}: nginx under wrk", args.rounds);
            report.server.extend(server::measure(tcptrace, folder, 3)?);
        }
    }
    if is_load_wanted(&Load::Connections) && rows.len() > 1 {
        eprintln!("the eBPF programs, by the kernel's statistics");
        netns::enter()?;
        report.programs = programs::measure(tcptrace, args.connections)?;
    }
    Ok(report)
}

/// Shuffles the rows, so that no row has the same neighbour in each round.
fn shuffle<T>(turns: &mut [T]) {
    let random = RandomState::new();
    for n in (1..turns.len()).rev() {
        turns.swap(n, (random.hash_one(n) % (n as u64 + 1)) as usize);
    }
}

/// Runs one row under one load in a private network namespace. Returns the microseconds per
/// operation, and the watcher's cost if there is a watcher.
fn once(
    watcher: Option<(&Row, &Path, &Path)>,
    load: Load,
    connections: u32,
) -> Result<(f64, Option<Cost>)> {
    netns::enter()?;
    let running = match watcher {
        Some((row, program, folder)) if !matches!(row.watcher, Watcher::Nobody) => {
            Some(Running::start(row, program, folder)?)
        }
        _ => None,
    };
    let load_us = load::play(load, connections)?;
    let cost = running.map(Running::stop).transpose()?;
    Ok((load_us, cost))
}

/// Returns the version of tcptrace, and the commit if git is available.
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

/// Writes a file that belongs to the user who called sudo.
fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    let id = |name| env::var(name).ok()?.parse().ok();
    if let (Some(uid), Some(gid)) = (id("SUDO_UID"), id("SUDO_GID")) {
        chown(path, Some(uid), Some(gid))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_keeps_all_elements_and_changes_their_order() {
        let shuffled = || {
            let mut turns: Vec<u32> = (0..20).collect();
            shuffle(&mut turns);
            turns
        };
        let orders: std::collections::BTreeSet<Vec<u32>> = (0..10).map(|_| shuffled()).collect();
        assert!(orders.len() > 1);
        for mut order in orders {
            order.sort_unstable();
            assert_eq!(order, (0..20).collect::<Vec<_>>());
        }
    }
}
