//! Fuzzing: builds the targets of `tests/fuzz` with libFuzzer, and runs them.
//!
//! Stable Rust can instrument code for libFuzzer, see `tests/fuzz/instrument`, and the crate
//! libfuzzer-sys has the rest. Only the address sanitizer would need nightly Rust.

use std::{
    env,
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{cmd, files, packages, tcptrace};

/// The C++ compiler for libFuzzer.
pub const TOOLS: [&str; 1] = ["g++"];

/// The crates that are optimized and instrumented, and libFuzzer. All other dependencies are those of the
/// unit tests, so a build takes a minute or two and not ten.
const OPTIMIZED: [&str; 4] = ["tcptrace-ebpf", "tcptrace-core", "tcptrace", "fuzz"];

/// Each target with the longest input that libFuzzer makes for it, in bytes.
const TARGETS: [(&str, u32); 8] = [
    ("records", 900),
    ("recording", 4096),
    ("events", 2048),
    ("btf", 1024),
    ("command_line", 512),
    ("conditions", 128),
    ("elf", 4096),
    ("host_files", 1024),
];

/// A run that takes longer hangs. It is far above the longest run, because the fuzzers have the lowest
/// priority and may wait for a CPU.
const HANG: Duration = Duration::from_secs(60);

/// Upper bounds on the memory of a fuzzer, and of one allocation, in MiB. The debug information of one
/// ELF file may take 512.
const MEMORY: u32 = 2048;
const ALLOCATION: u32 = 600;

/// Upper bound on the stored corpus of one target in bytes.
const STORED: u64 = 6 << 10;

#[derive(clap::Args)]
pub struct Args {
    /// Run only these targets
    #[arg(value_name = "TARGET", value_parser = TARGETS.map(|(name, _)| name))]
    targets: Vec<String>,
    /// How long all of them run together
    #[arg(long, value_name = "N", default_value_t = 60)]
    minutes: u64,
    /// How many run at a time
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Replace the stored corpora by small selections from everything that was found
    #[arg(long, conflicts_with = "minutes")]
    minimize: bool,
    /// Install the C++ compiler that libFuzzer needs
    #[arg(long)]
    install: bool,
}

/// Runs the command `cargo xtask fuzz`.
pub fn run(root: &Path, args: &Args) -> Result<()> {
    if args.install {
        packages::install(&TOOLS)?;
    }
    ensure!(args.jobs > 0, "--jobs is at least 1");
    let chosen = |name: &str| args.targets.is_empty() || args.targets.iter().any(|it| it == name);
    let targets: Vec<_> = TARGETS
        .into_iter()
        .filter(|(name, _)| chosen(name))
        .collect();
    let programs = build(root, 3)?;
    if args.minimize {
        return targets
            .iter()
            .try_for_each(|(name, _)| minimize(root, &programs, name));
    }
    let rounds = targets.len().div_ceil(args.jobs) as u64;
    let each = Duration::from_secs((args.minutes * 60 / rounds).max(1));
    fuzz(root, &programs, &targets, each, args.jobs)
}

/// Runs each target for a minute.
pub fn short(root: &Path) -> Result<()> {
    let programs = build(root, 1)?;
    fuzz(root, &programs, &TARGETS, Duration::from_secs(60), 2)
}

/// Builds the fuzzers, and returns the folder of the programs. Overflows and failed debug assertions
/// panic, because the profile is that of tests.
fn build(root: &Path, level: u32) -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = lowest(cargo);
    build
        .current_dir(root)
        .args(["build", "--quiet", "--locked", "--package=fuzz", "--bins"])
        .arg("--features=libfuzzer")
        .args(
            OPTIMIZED.map(|name| format!("--config=profile.dev.package.{name}.opt-level={level}")),
        )
        .arg("--config=profile.dev.package.libfuzzer-sys.opt-level=3")
        .env(
            "RUSTC_WORKSPACE_WRAPPER",
            root.join("tests/fuzz/instrument"),
        );
    cmd::run(&mut build).context("cannot build the fuzzers")?;
    Ok(tcptrace::target(root).join("debug"))
}

/// Returns a command that gets CPU time only when nothing else wants it.
fn lowest(program: impl Into<OsString>) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(program.into());
    command
}

/// The folders of a target.
struct Folders {
    /// Everything that was found here, which makes the next run start from there.
    work: PathBuf,
    /// The corpus in the repository.
    stored: PathBuf,
    /// The inputs in the repository that have found a fault.
    regressions: PathBuf,
    /// Where libFuzzer writes an input that fails.
    failed: PathBuf,
    log: PathBuf,
}

impl Folders {
    fn of(root: &Path, name: &str) -> Result<Folders> {
        let made = tcptrace::target(root).join("fuzz");
        let stored = root.join("tests/fuzz");
        let folders = Folders {
            work: made.join("corpus").join(name),
            stored: stored.join("corpus").join(name),
            regressions: stored.join("regressions").join(name),
            failed: made.join("failed").join(name),
            log: made.join(format!("{name}.log")),
        };
        for folder in [&folders.work, &folders.failed] {
            fs::create_dir_all(folder)?;
        }
        Ok(folders)
    }

    /// Returns those that exist and contain inputs to begin with.
    fn begin(&self) -> impl Iterator<Item = &PathBuf> {
        let all = [&self.work, &self.stored, &self.regressions];
        all.into_iter().filter(|it| it.is_dir())
    }
}

/// The result of one fuzzer.
struct Ran {
    name: &'static str,
    executions: u64,
    /// The largest size in memory, in MiB.
    memory: u64,
    failure: Option<String>,
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ran {
            name,
            executions,
            memory,
            ..
        } = self;
        let result = self.failure.as_deref().unwrap_or("nothing found");
        write!(
            f,
            "{name:<14} {executions:>12} executions {memory:>5} MiB  {result}"
        )
    }
}

/// Runs targets, `jobs` at a time, each for a time, and prints their executions.
fn fuzz(
    root: &Path,
    programs: &Path,
    targets: &[(&'static str, u32)],
    each: Duration,
    jobs: usize,
) -> Result<()> {
    let waiting = Mutex::new(targets.iter());
    let ended = Mutex::new(vec![]);
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().expect("no panic").next();
                    let Some(&(name, longest)) = next else { break };
                    let ran = one(root, programs, name, longest, each);
                    ended.lock().expect("no panic").push(ran);
                }
            });
        }
    });
    let ended = ended.into_inner().expect("no panic");
    let ended = ended.into_iter().collect::<Result<Vec<Ran>>>()?;
    println!("Fuzzed for {} s each:", each.as_secs());
    ended.iter().for_each(|ran| println!("  {ran}"));
    let sum: u64 = ended.iter().map(|it| it.executions).sum();
    println!("  {:<14} {sum:>12} executions", "together");
    let failed = ended.iter().filter(|it| it.failure.is_some()).count();
    ensure!(failed == 0, "{failed} of {} targets failed", ended.len());
    Ok(())
}

fn one(
    root: &Path,
    programs: &Path,
    name: &'static str,
    longest: u32,
    each: Duration,
) -> Result<Ran> {
    let folders = Folders::of(root, name)?;
    let log = fs::File::create(&folders.log)?;
    let mut fuzzer = lowest(programs.join(name));
    fuzzer
        .current_dir(root)
        .arg(format!("-max_total_time={}", each.as_secs()))
        .arg(format!("-max_len={longest}"))
        .arg(format!("-timeout={}", HANG.as_secs()))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .arg(format!("-malloc_limit_mb={ALLOCATION}"))
        .arg(format!("-artifact_prefix={}/", folders.failed.display()))
        .args(["-print_final_stats=1", "-use_value_profile=1"])
        .args(folders.begin())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let status = fuzzer
        .status()
        .with_context(|| format!("cannot start {}", cmd::line(&fuzzer)))?;
    let log = String::from_utf8_lossy(&fs::read(&folders.log)?).into_owned();
    let executions = statistic(&log, "number_of_executed_units");
    let failure = (!status.success() || executions.is_none()).then(|| {
        let last: Vec<&str> = log.lines().rev().take(30).collect();
        last.iter()
            .rev()
            .for_each(|line| println!("{name}: {line}"));
        format!("FAILED; the input is in {}", folders.failed.display())
    });
    Ok(Ran {
        name,
        executions: executions.unwrap_or(0),
        memory: statistic(&log, "peak_rss_mb").unwrap_or(0),
        failure,
    })
}

/// Returns a number that libFuzzer prints at the end.
fn statistic(log: &str, name: &str) -> Option<u64> {
    let line = log
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name))?;
    line.strip_prefix(':')?.trim().parse().ok()
}

/// Replaces a stored corpus by the smallest inputs that cover the most.
fn minimize(root: &Path, programs: &Path, name: &str) -> Result<()> {
    let folders = Folders::of(root, name)?;
    let chosen = folders.failed.with_file_name(format!("{name}.chosen"));
    if chosen.exists() {
        fs::remove_dir_all(&chosen)?;
    }
    fs::create_dir_all(&chosen)?;
    let mut merge = lowest(programs.join(name));
    merge
        .arg("-set_cover_merge=1")
        .arg(&chosen)
        .args(folders.begin());
    let log = fs::File::create(&folders.log)?;
    cmd::run(merge.stdout(log.try_clone()?).stderr(log))?;
    let mut found = vec![];
    for file in files::below(&chosen)? {
        found.push((fs::metadata(&file)?.len(), file));
    }
    if found.is_empty() {
        bail!("{name} covers nothing");
    }
    found.sort();
    if folders.stored.exists() {
        fs::remove_dir_all(&folders.stored)?;
    }
    fs::create_dir_all(&folders.stored)?;
    let (mut bytes, mut count) = (0, 0);
    for (len, file) in &found {
        bytes += len;
        if bytes > STORED {
            break;
        }
        fs::copy(
            file,
            folders
                .stored
                .join(file.file_name().context("a file has a name")?),
        )?;
        count += 1;
    }
    println!("{name}: {count} of {} inputs stored", found.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_program_and_is_known_here() -> Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz");
        let source = fs::read_to_string(root.join("src/lib.rs"))?;
        let declared = source
            .lines()
            .filter_map(|line| line.trim().strip_prefix("(\""));
        let declared: Vec<&str> = declared.filter_map(|it| it.split('"').next()).collect();
        assert_eq!(declared, TARGETS.map(|(name, _)| name));
        for (name, _) in TARGETS {
            assert!(root.join(format!("src/bin/{name}.rs")).is_file(), "{name}");
        }
        Ok(())
    }

    #[test]
    fn executions_are_read_from_the_last_lines_of_the_log() {
        let log = "stat::number_of_executed_units: 7\nx\nstat::number_of_executed_units: 1234\n\
                   stat::peak_rss_mb:              96\n";
        assert_eq!(statistic(log, "number_of_executed_units"), Some(1234));
        assert_eq!(statistic(log, "peak_rss_mb"), Some(96));
        assert_eq!(statistic("", "peak_rss_mb"), None);
    }
}
