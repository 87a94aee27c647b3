//! Traces a churn of connections for hours, in several modes at the same time. Memory must reach a
//! plateau, no event may be lost or unaccounted, and each connection must be reported once.

use std::{
    env,
    fs::{self, File},
    io::{self, Read},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    churn::{self, Made, PORTS},
    plateau::{Sample, Trend},
    reader::Told,
};
use crate::{
    cmd,
    process::{cpu_seconds, memory_kib, spawn},
    tcptrace,
};

/// Connections an hour that a soak makes at least.
const LEAST_AN_HOUR: f64 = 1e6;

/// Timeout for anything that is certain to happen.
const TIMEOUT: Duration = Duration::from_secs(180);

/// How long tracers have for the last events before they are stopped.
const DRAIN: Duration = Duration::from_secs(3);

/// Samples of memory in a run.
const SAMPLES: u32 = 400;

/// The minutes of the short form.
const SHORT: &str = "10";

/// The priority of the short form: lower than that of the tests beside it. Not the lowest, because
/// emulators of VMs never sleep, and tracers that do not run lose events.
const NICE: i32 = 5;

/// A mode of tcptrace.
struct Mode {
    name: &'static str,
    args: &'static [&'static str],
    /// The arguments of a second tcptrace that reads the output of the first.
    reader: Option<&'static [&'static str]>,
}

/// Each has a tracer of its own.
const MODES: [Mode; 4] = [
    Mode {
        name: "json",
        args: &["-o", "json"],
        reader: None,
    },
    Mode {
        name: "histogram",
        args: &["-o", "json", "--depth", "histogram"],
        reader: None,
    },
    Mode {
        name: "why",
        args: &["-o", "json", "--depth", "connections", "--why"],
        reader: None,
    },
    Mode {
        name: "record",
        args: &["record", "-o", "-"],
        reader: Some(&["replay", "-", "-o", "json", "--depth", "connections"]),
    },
];

#[derive(clap::Args)]
#[group(id = "tracers")]
pub struct Args {
    /// How long it runs, in hours [2]
    #[arg(long, value_name = "N", value_parser = positive)]
    hours: Option<f64>,
    /// How long it runs, in minutes
    #[arg(long, value_name = "N", value_parser = positive, conflicts_with = "hours")]
    minutes: Option<f64>,
    /// The folder of a built tcptrace; set by this program itself
    #[arg(long, hide = true)]
    built: Option<PathBuf>,
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok();
    let number = number.filter(|n: &f64| (0.001..10_000.0).contains(n));
    number.ok_or_else(|| "it is a number such as 2 or 0.5".to_owned())
}

impl Args {
    fn duration(&self) -> Duration {
        let hours = self.hours.or(self.minutes.map(|n| n / 60.0)).unwrap_or(2.0);
        Duration::from_secs_f64(hours * 3600.0)
    }
}

/// A soak of ten minutes that runs beside other tests.
pub struct Short {
    soak: Child,
    output: PathBuf,
}

/// Starts a soak of ten minutes.
///
/// It runs beside the tests in VMs and of the packages, which use other kernels and other root
/// directories, because ten more minutes would be a third of all tests. The scenarios of this
/// kernel must be over: every tracer of the machine runs for each of its connections, and storms
/// that make them lose events are part of them.
pub fn in_short(root: &Path) -> Result<Short> {
    let built = folder(root)?;
    let output = tcptrace::target(root).join("soak.log");
    let log = File::create(&output).with_context(|| format!("cannot make {}", output.display()))?;
    let mut soak = Command::new(env::current_exe()?);
    soak.args(["soak", "--minutes", SHORT, "--built"])
        .arg(built)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    // SAFETY: setpriority is async-signal-safe.
    unsafe {
        soak.pre_exec(|| {
            libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
            Ok(())
        });
    }
    let soak = spawn(&mut soak)?;
    Ok(Short { soak, output })
}

impl Short {
    /// Waits for the end, and prints the figures.
    pub fn finish(mut self) -> Result<()> {
        let status = self.soak.wait()?;
        let said = fs::read_to_string(&self.output)?;
        print!("{said}");
        let last = said.trim().lines().last().unwrap_or_default();
        ensure!(status.success(), "{last}");
        Ok(())
    }
}

fn folder(root: &Path) -> Result<PathBuf> {
    let tcptrace = tcptrace::build(root)?;
    let folder = tcptrace.parent().context("tcptrace lies in no folder")?;
    Ok(folder.to_path_buf())
}

pub fn run(root: &Path, args: &Args) -> Result<()> {
    let folder = match &args.built {
        Some(folder) => folder.clone(),
        None => folder(root)?,
    };
    if let Some(sudo) = cmd::sudo()? {
        return Err(cmd::again_as_root(sudo, &folder)?);
    }
    let duration = args.duration();
    let mut tracers = MODES
        .iter()
        .map(|mode| Tracer::start(&folder.join("tcptrace"), mode))
        .collect::<Result<Vec<_>>>()?;
    let made = watch(&mut tracers, duration)?;
    thread::sleep(DRAIN);
    let mut faults = vec![];
    let hours = duration.as_secs_f64() / 3600.0;
    let an_hour = made.connects as f64 / hours;
    println!(
        "{} connections in {:.0} minutes, {an_hour:.0} an hour; {} accepted or queued, {} never accepted",
        made.connects,
        hours * 60.0,
        made.established,
        made.never_accepted
    );
    if an_hour < LEAST_AN_HOUR {
        faults.push(format!("only {an_hour:.0} connections an hour were made"));
    }
    for tracer in tracers {
        faults.extend(tracer.finish(&made, duration)?);
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    Ok(())
}

/// Makes the connections, and samples the memory of the tracers meanwhile.
fn watch(tracers: &mut [Tracer], duration: Duration) -> Result<Made> {
    let begun = Instant::now();
    let ends = begun + duration;
    let (progress, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut said = begun;
    thread::scope(|scope| {
        let churn = scope.spawn(|| churn::run(ends, &progress, &stop));
        while !churn.is_finished() {
            let hours = begun.elapsed().as_secs_f64() / 3600.0;
            let sampled = tracers.iter_mut().try_for_each(|it| it.sample(hours));
            if sampled.is_err() {
                stop.store(true, Ordering::Relaxed);
                return sampled.map(|()| Made::default());
            }
            if said.elapsed() >= duration / 12 {
                said = Instant::now();
                let made = progress.load(Ordering::Relaxed);
                let rest = tracers.iter().flat_map(|it| &it.processes);
                let rest: Vec<String> = rest.map(Process::last).collect();
                eprintln!(
                    "{:.0} min: {made} connections; {}",
                    hours * 60.0,
                    rest.join(", ")
                );
            }
            thread::sleep(duration / SAMPLES);
        }
        churn.join().map_err(|_| Error::msg("the churn panicked"))?
    })
}

/// A process of a tracer. Killed when it is dropped.
struct Process {
    name: String,
    child: Child,
    memory: Vec<Sample>,
    /// Numbers of descriptors.
    descriptors: Vec<usize>,
}

impl Process {
    fn start(name: String, command: &mut Command) -> Result<Process> {
        let child = spawn(command)?;
        Ok(Process {
            name,
            child,
            memory: vec![],
            descriptors: vec![],
        })
    }

    fn sample(&mut self, hours: f64) -> Result<()> {
        let pid = self.child.id();
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended by itself: {status}", self.name);
        }
        let kib = memory_kib(pid, "VmRSS").context("no VmRSS")?;
        self.memory.push(Sample { hours, kib });
        self.descriptors
            .push(fs::read_dir(format!("/proc/{pid}/fd"))?.count());
        Ok(())
    }

    fn last(&self) -> String {
        let kib = self.memory.last().map_or(0.0, |it| it.kib);
        format!("{} {:.1} MiB", self.name, kib / 1024.0)
    }

    /// Prints memory and CPU time, and returns what is wrong with them.
    fn judge(&self, duration: Duration) -> Result<Vec<String>> {
        let name = &self.name;
        let trend = Trend::of_last_half(&self.memory).context("too few samples")?;
        let cpu_s = cpu_seconds(self.child.id())?;
        let middle = self.memory[self.memory.len() / 2].kib / 1024.0;
        let end = self.memory[self.memory.len() - 1].kib / 1024.0;
        println!(
            "{name}: {middle:.1} MiB in the middle, {end:.1} MiB at the end, slope {:+.0} KiB an hour; \
             CPU {:.2} % of one",
            trend.slope,
            100.0 * cpu_s / duration.as_secs_f64()
        );
        let mut faults = vec![];
        if !trend.is_flat() {
            faults.push(format!(
                "{name} grows by {:.0} KiB an hour (at most {:.0})",
                trend.slope,
                trend.limit()
            ));
        }
        // A socket snapshot opens some for a moment.
        let quarter = self.descriptors.len() / 4;
        let least = |of: &[usize]| of.iter().copied().min().unwrap_or(0);
        let before = least(&self.descriptors[2 * quarter..3 * quarter]);
        let after = least(&self.descriptors[3 * quarter..]);
        if after > before {
            faults.push(format!("{name} has {after} descriptors after {before}"));
        }
        Ok(faults)
    }

    fn wait(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "{} ended with {status}", self.name);
                return Ok(());
            }
            ensure!(begun.elapsed() < TIMEOUT, "{} does not end", self.name);
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The output of a tracer, which begins when the hooks are attached.
struct Begun {
    output: ChildStdout,
    /// Gets a message with the first bytes.
    begun: Option<Sender<()>>,
}

impl Read for Begun {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n = self.output.read(bytes)?;
        if let Some(begun) = self.begun.take_if(|_| n > 0) {
            // Fails if nobody waits any more.
            let _ = begun.send(());
        }
        Ok(n)
    }
}

/// One or two processes of tcptrace, and the thread that reads their lines.
struct Tracer {
    name: &'static str,
    /// The first one traces.
    processes: Vec<Process>,
    reader: Option<JoinHandle<Result<Told>>>,
}

impl Tracer {
    /// Starts a tracer and waits until it is attached.
    fn start(tcptrace: &Path, mode: &Mode) -> Result<Tracer> {
        let name = mode.name;
        let mut command = Command::new(tcptrace);
        command
            .args(mode.args)
            .args(["-p", PORTS])
            .env("TCPTRACE_NO_CONFIG", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut processes = vec![Process::start(name.to_owned(), &mut command)?];
        let (sender, begun) = channel();
        let mut lines = Begun {
            output: processes[0].child.stdout.take().context("no pipe")?,
            begun: Some(sender),
        };
        let reader = match mode.reader {
            None => thread::spawn(move || Told::read(lines)),
            Some(words) => {
                let mut command = Command::new(tcptrace);
                command
                    .args(words)
                    .env("TCPTRACE_NO_CONFIG", "1")
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped());
                let mut replay = Process::start(words[0].to_owned(), &mut command)?;
                let mut to = replay.child.stdin.take().context("no pipe")?;
                let from = replay.child.stdout.take().context("no pipe")?;
                processes.push(replay);
                // Ends with the recorder, or with an error if the replay has ended.
                thread::spawn(move || io::copy(&mut lines, &mut to));
                thread::spawn(move || Told::read(from))
            }
        };
        begun
            .recv_timeout(TIMEOUT)
            .with_context(|| format!("{name} did not begin"))?;
        Ok(Tracer {
            name,
            processes,
            reader: Some(reader),
        })
    }

    fn sample(&mut self, hours: f64) -> Result<()> {
        if self.reader.as_ref().is_none_or(JoinHandle::is_finished) {
            self.told()?;
            bail!("{} stopped writing", self.name);
        }
        let mut processes = self.processes.iter_mut();
        processes.try_for_each(|process| process.sample(hours))
    }

    /// Ends the tracer, prints its figures, and returns what is wrong.
    fn finish(mut self, made: &Made, duration: Duration) -> Result<Vec<String>> {
        let mut faults = vec![];
        for process in &self.processes {
            faults.extend(process.judge(duration)?);
        }
        let tracing = Pid::from_raw(self.processes[0].child.id() as i32);
        kill(tracing, Signal::SIGINT)?;
        self.processes.iter_mut().try_for_each(Process::wait)?;
        match self
            .told()
            .and_then(|told| told.check(made).context(self.name).map(|()| told))
        {
            Ok(told) => println!(
                "{}: {} lines, {} servers, {} clients, {} incomplete, 0 lost",
                self.name, told.lines, told.servers, told.clients, told.incomplete
            ),
            Err(error) => faults.push(format!("{error:#}")),
        }
        Ok(faults)
    }

    /// Waits for the end of the lines. The error names the tracer.
    fn told(&mut self) -> Result<Told> {
        let reader = self.reader.take().context("it was read before")?;
        let told = reader.join().map_err(|_| Error::msg("the reader panicked"));
        told.flatten().context(self.name)
    }
}
