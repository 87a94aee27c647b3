//! The soak of `tcptrace export`: memory, time of a scrape, and CPU time per connection, while
//! containers and listeners come and go.
//!
//! `tcptrace --depth histogram` traces the same connections at the same time, for comparison.

mod member;
mod storm;
mod tracer;

use std::{
    env,
    fs::{self, File},
    io::Write as _,
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, bail, ensure};
use serde::Serialize;

pub use self::member::run as member;
use self::{
    storm::{CONTAINERS, Counts, LISTENING, PORTS, Storm},
    tracer::{Cpu, Scrape, Tracer, enable_statistics, scrape, sum},
};
use crate::{
    bench::{Spread, table},
    cmd, tcptrace,
};

#[derive(clap::Args)]
pub struct Args {
    /// Length of the soak
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..))]
    minutes: u32,
    /// Connections per second
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(10..))]
    rate: u32,
    /// Soak this tcptrace instead of building one
    #[arg(long, value_name = "FILE")]
    tcptrace: Option<PathBuf>,
}

/// Where `export` listens, in the network namespace of the soak.
const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 9807);

/// Time between two batches of connections.
const TICK: Duration = Duration::from_millis(10);

/// Time between two samples.
const SAMPLE: Duration = Duration::from_secs(5);

/// Time between two scrapes, as in many configurations of Prometheus.
const SCRAPE: Duration = Duration::from_secs(15);

/// Time between two sleeps of a server, in ticks, and the length of the sleep in milliseconds.
const DELAY_TICKS: u32 = 100;
const DELAY_MS: u32 = 50;

/// The kernel's statistics of eBPF programs are on during the last part of the soak only, because
/// they make every program on the machine slower.
const STATISTICS: Duration = Duration::from_secs(60);

/// Goals: growth of the resident memory in the last half, time of a scrape, and CPU time per
/// connection relative to `--depth histogram`.
const GROWTH_KIB: f64 = 1024.0;
const SCRAPE_MS: f64 = 100.0;
const CPU_RATIO: f64 = 1.10;

/// A sample.
#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    s: f64,
    connections: u64,
    export_kib: f64,
    histogram_kib: f64,
    export_cpu_s: f64,
    scrapes_cpu_s: f64,
    histogram_cpu_s: f64,
}

/// The figures of a scrape.
#[derive(Clone, Copy, Debug, Serialize)]
struct Scraped {
    ms: f64,
    bytes: usize,
    label_sets: f64,
    lost: f64,
}

/// All figures of a soak.
struct Figures {
    minutes: u32,
    rate: u32,
    samples: Vec<Sample>,
    scrapes: Vec<Scraped>,
    counts: Counts,
    peak_kib: f64,
    /// Nanoseconds in eBPF programs per connection: export, histogram.
    programs_ns: [f64; 2],
}

pub fn run(root: &Path, args: &Args) -> Result<()> {
    let built = match &args.tcptrace {
        Some(file) => file.clone(),
        None => tcptrace::build(root)?,
    };
    if let Some(sudo) = cmd::sudo()? {
        return Err(again_as_root(sudo, &built, args.tcptrace.is_some())?);
    }
    let folder = root.join("target/soak");
    fs::create_dir_all(&folder)?;
    // A copy, so that a later build does not replace it.
    let tcptrace = folder.join("tcptrace");
    let _ = fs::remove_file(&tcptrace);
    fs::copy(&built, &tcptrace).with_context(|| format!("cannot copy {}", built.display()))?;
    let folder = folder.canonicalize()?;
    let tcptrace = folder.join("tcptrace");
    storm::hide_containers()?;
    crate::netns::enter()?;
    let figures = soak(args, &tcptrace, &folder)?;
    let (text, is_met) = figures.report();
    println!("{text}");
    ensure!(is_met, "a goal is missed");
    Ok(())
}

/// Replaces this process by the same command as root. Returns only on failure.
fn again_as_root(sudo: &str, built: &Path, is_given: bool) -> Result<Error> {
    let mut command = Command::new(sudo);
    command
        .args(["--preserve-env", "--"])
        .arg(env::current_exe()?);
    command.args(env::args_os().skip(1));
    if !is_given {
        command.arg("--tcptrace").arg(built);
    }
    let error = command.exec();
    Ok(Error::new(error).context(format!("cannot start `{}`", cmd::line(&command))))
}

fn soak(args: &Args, tcptrace: &Path, folder: &Path) -> Result<Figures> {
    let time = Duration::from_secs(u64::from(args.minutes) * 60);
    let (said, histogram_said) = (folder.join("export.txt"), folder.join("histogram.txt"));
    let mut export = Tracer::start(tcptrace, &["export", "--netns", "self"], &said)?;
    let arguments = ["--depth", "histogram", "-o", "json", "--netns", "self"];
    let mut histogram = Tracer::start(tcptrace, &arguments, &histogram_said)?;
    let mut samples_file = File::create(folder.join("export.jsonl"))?;
    let mut storm = Storm::new(time)?;
    let scraper = Scraper::start();
    let began = Instant::now();
    let (mut samples, mut programs) = (vec![], None);
    let per_second = args.rate;
    let ticks_per_second = (1000 / TICK.as_millis()) as u32;
    let mut tick = 0_u32;
    while began.elapsed() < time {
        let elapsed = began.elapsed();
        let due = u64::from(tick + 1) * u64::from(per_second) / u64::from(ticks_per_second);
        let before = u64::from(tick) * u64::from(per_second) / u64::from(ticks_per_second);
        storm.blow(elapsed, (due - before) as u32)?;
        if tick.is_multiple_of(DELAY_TICKS) {
            storm.delay(DELAY_MS)?;
        }
        if elapsed >= SAMPLE * samples.len() as u32 {
            export.still_runs(&said)?;
            histogram.still_runs(&histogram_said)?;
            let sample = sample(elapsed, &storm, &export, &histogram)?;
            writeln!(samples_file, "{}", serde_json::to_string(&sample)?)?;
            samples.push(sample);
        }
        if programs.is_none() && elapsed + STATISTICS >= time {
            let on = enable_statistics()?;
            let before = (
                export.programs()?,
                histogram.programs()?,
                storm.counts.ordered,
            );
            programs = Some((on, before));
        }
        tick += 1;
        thread::sleep((TICK * tick).saturating_sub(began.elapsed()));
    }
    let per_connection = |of: &Tracer, before: tracer::Programs, connections: u64| {
        let ns = of.programs()?.ns.saturating_sub(before.ns);
        Ok::<_, Error>(ns as f64 / connections as f64)
    };
    let programs_ns = match programs {
        Some((on, (of_export, of_histogram, connections))) => {
            let connections = storm.counts.ordered - connections;
            let both = [
                per_connection(&export, of_export, connections)?,
                per_connection(&histogram, of_histogram, connections)?,
            ];
            drop(on);
            both
        }
        None => bail!("the soak is too short"),
    };
    let scrapes = scraper.end()?;
    for scraped in &scrapes {
        writeln!(samples_file, "{}", serde_json::to_string(scraped)?)?;
    }
    let peak_kib = export.memory_kib("VmHWM")?;
    let counts = storm.end()?;
    export.end()?;
    histogram.end()?;
    Ok(Figures {
        minutes: args.minutes,
        rate: args.rate,
        samples,
        scrapes,
        counts,
        peak_kib,
        programs_ns,
    })
}

fn sample(at: Duration, storm: &Storm, export: &Tracer, histogram: &Tracer) -> Result<Sample> {
    let Cpu {
        tracing_s,
        scrapes_s,
    } = export.cpu()?;
    Ok(Sample {
        s: at.as_secs_f64(),
        connections: storm.counts.ordered,
        export_kib: export.memory_kib("VmRSS")?,
        histogram_kib: histogram.memory_kib("VmRSS")?,
        export_cpu_s: tracing_s,
        scrapes_cpu_s: scrapes_s,
        histogram_cpu_s: histogram.cpu()?.tracing_s,
    })
}

/// The thread that scrapes.
struct Scraper {
    thread: thread::JoinHandle<Result<()>>,
    scraped: Arc<Mutex<Vec<Scraped>>>,
    quit: std::sync::mpsc::Sender<()>,
}

impl Scraper {
    fn start() -> Scraper {
        let scraped = Arc::new(Mutex::new(vec![]));
        let (quit, quits) = std::sync::mpsc::channel();
        let found = scraped.clone();
        let thread = thread::spawn(move || {
            while quits.recv_timeout(SCRAPE).is_err() {
                let Scrape { time, text } = scrape(SocketAddr::from(ADDRESS))?;
                let scraped = Scraped {
                    ms: time.as_secs_f64() * 1e3,
                    bytes: text.len(),
                    label_sets: sum(&text, "tcptrace_label_sets"),
                    lost: sum(&text, "tcptrace_events_lost_total"),
                };
                found
                    .lock()
                    .map_err(|_| Error::msg("poisoned"))?
                    .push(scraped);
            }
            Ok(())
        });
        Scraper {
            thread,
            scraped,
            quit,
        }
    }

    fn end(self) -> Result<Vec<Scraped>> {
        // The thread has ended by itself if a scrape has failed.
        let _ = self.quit.send(());
        let ended = self.thread.join().map_err(|_| Error::msg("a panic"))?;
        ended.context("a scrape failed")?;
        let scraped = self.scraped.lock().map_err(|_| Error::msg("poisoned"))?;
        Ok(scraped.clone())
    }
}

impl Figures {
    /// Returns the table, and whether all goals are met.
    fn report(&self) -> (String, bool) {
        let half = &self.samples[self.samples.len() / 2..];
        let export = growth_kib(half, |it| it.export_kib);
        let histogram = growth_kib(half, |it| it.histogram_kib);
        let ms = Spread::of(self.scrapes.iter().map(|it| it.ms));
        let ms = ms.unwrap_or_default();
        let us = |of: fn(&Sample) -> f64| self.us_per_connection(of);
        let (traced_us, histogram_us) = (us(|it| it.export_cpu_s), us(|it| it.histogram_cpu_s));
        let scrapes_cpu_s = self.samples.last().map_or(f64::NAN, |it| it.scrapes_cpu_s);
        let scrape_cpu_ms = scrapes_cpu_s * 1e3 / self.scrapes.len() as f64;
        let [programs_us, histogram_programs_us] = self.programs_ns.map(|it| it / 1e3);
        let ratio = (traced_us + programs_us) / (histogram_us + histogram_programs_us);
        let last = self.scrapes.last();
        let lost = last.map_or(f64::NAN, |it| it.lost);
        let mut is_met = true;
        let mut row = |what: &str, measured: String, goal: Option<(String, bool)>| {
            let goal = goal.map_or(String::new(), |(goal, met)| {
                is_met &= met;
                format!("{goal}: {}", if met { "met" } else { "missed" })
            });
            vec![what.to_owned(), measured, goal]
        };
        let at = |n: usize, of: fn(&Sample) -> f64| mib(of(&self.samples[n]));
        let (middle, end) = (self.samples.len() / 2, self.samples.len() - 1);
        let memory = |of| format!("{}, {}, {}", at(0, of), at(middle, of), at(end, of));
        let rows = vec![
            row(
                "memory at start, half and end, MiB",
                memory(|it| it.export_kib),
                None,
            ),
            row(
                "growth in the last half by its slope, KiB",
                format!("{export:.0}"),
                Some((format!("{GROWTH_KIB}"), export <= GROWTH_KIB)),
            ),
            row("peak, MiB", mib(self.peak_kib), None),
            row(
                "time of a scrape, ms",
                ms.show(1),
                Some((format!("{SCRAPE_MS}"), ms.max <= SCRAPE_MS)),
            ),
            row(
                "label sets, and size of the last scrape, KiB",
                last.map_or(String::new(), |it| {
                    format!("{}, {}", it.label_sets, it.bytes >> 10)
                }),
                None,
            ),
            row(
                "CPU per connection: process, programs, µs",
                format!("{traced_us:.2}, {programs_us:.2}"),
                None,
            ),
            row(
                "the same of --depth histogram, µs",
                format!("{histogram_us:.2}, {histogram_programs_us:.2}"),
                None,
            ),
            row(
                "export relative to --depth histogram",
                format!("{ratio:.3}"),
                Some((format!("{CPU_RATIO:.2}"), ratio <= CPU_RATIO)),
            ),
            row(
                "CPU time of a scrape, ms",
                format!("{scrape_cpu_ms:.1}"),
                None,
            ),
            row(
                "growth of --depth histogram, KiB",
                format!("{histogram:.0}"),
                None,
            ),
            row(
                "lost events",
                format!("{lost}"),
                Some(("0".to_owned(), lost == 0.0)),
            ),
        ];
        let Counts {
            made,
            failed,
            listeners,
            containers,
            ..
        } = self.counts;
        let text = format!(
            "{} minutes, {} connections per second: {made} connections ({failed} failed), {listeners} listeners \
             ({} at a time, {PORTS} ports), {containers} containers ({CONTAINERS} at a time)\n\n{}",
            self.minutes,
            self.rate,
            CONTAINERS * LISTENING,
            table(&["figure", "measured", "goal"], &rows)
        );
        (text, is_met)
    }

    /// Returns the CPU time per connection between the first and the last sample, in microseconds.
    fn us_per_connection(&self, of: fn(&Sample) -> f64) -> f64 {
        let (Some(first), Some(last)) = (self.samples.first(), self.samples.last()) else {
            return f64::NAN;
        };
        let connections = last.connections.saturating_sub(first.connections);
        (of(last) - of(first)) * 1e6 / connections as f64
    }
}

fn mib(kib: f64) -> String {
    format!("{:.1}", kib / 1024.0)
}

/// Returns the growth over some samples: the slope by least squares times their duration.
fn growth_kib(samples: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    let n = samples.len() as f64;
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / n;
    let (middle, level) = (mean(&|it| it.s), mean(&|it| of(it)));
    let covariance = mean(&|it| (it.s - middle) * (of(it) - level));
    let variance = mean(&|it| (it.s - middle).powi(2));
    let time = match samples {
        [first, .., last] => last.s - first.s,
        _ => return 0.0,
    };
    covariance / variance * time
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(kib: &[f64]) -> Vec<Sample> {
        let sample = |(n, kib): (usize, &f64)| Sample {
            s: n as f64 * 5.0,
            connections: n as u64 * 2_000,
            export_kib: *kib,
            histogram_kib: 0.0,
            export_cpu_s: n as f64 * 0.02,
            scrapes_cpu_s: 0.0,
            histogram_cpu_s: n as f64 * 0.02,
        };
        kib.iter().enumerate().map(sample).collect()
    }

    fn figures(kib: &[f64], scrape_ms: &[f64], programs_ns: [f64; 2]) -> Figures {
        let scraped = |ms: &f64| Scraped {
            ms: *ms,
            bytes: 1 << 20,
            label_sets: 1000.0,
            lost: 0.0,
        };
        Figures {
            minutes: 60,
            rate: 400,
            samples: samples(kib),
            scrapes: scrape_ms.iter().map(scraped).collect(),
            counts: Counts::default(),
            peak_kib: 2048.0,
            programs_ns,
        }
    }

    #[test]
    fn growth_is_the_slope_times_the_duration() {
        let growth = |kib: &[f64]| growth_kib(&samples(kib), |it| it.export_kib).round();
        assert_eq!(growth(&[100.0, 110.0, 120.0, 130.0]), 30.0);
        assert_eq!(growth(&[100.0, 100.0, 100.0]), 0.0);
        // One sample that is higher is no growth.
        assert_eq!(growth(&[100.0, 100.0, 900.0, 100.0, 100.0]), 0.0);
    }

    #[test]
    fn each_goal_is_checked() {
        let flat = [9000.0; 8];
        let report = |figures: Figures| figures.report();
        let (text, is_met) = report(figures(&flat, &[20.0, 40.0], [1100.0, 1000.0]));
        assert!(is_met, "{text}");
        // 2,000 connections in 5 s, with 20 ms of CPU time.
        assert!(text.contains("10.00, 1.10"), "{text}");
        let growing = [0.0, 0.0, 0.0, 0.0, 0.0, 500.0, 1000.0, 2000.0];
        for missed in [
            figures(&growing, &[20.0], [1000.0, 1000.0]),
            figures(&flat, &[20.0, 101.0], [1000.0, 1000.0]),
            figures(&flat, &[20.0], [3000.0, 1000.0]),
        ] {
            let (text, is_met) = report(missed);
            assert!(!is_met && text.matches("missed").count() == 1, "{text}");
        }
    }
}
