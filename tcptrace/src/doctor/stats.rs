//! `tcptrace doctor --stats`: the cost of the programs under this machine's own TCP load.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::capture::statistics::{Counting, ProgramStatistics};
use crate::capture::{Capture, Request};
use crate::cli::ReportForm;
use crate::stdio::say;

/// The costs; one object in JSON.
#[derive(Serialize)]
struct Statistics {
    /// Length of the measurement, in nanoseconds.
    duration_ns: u64,
    programs: Vec<ProgramStatistics>,
}

/// Traces for `time` or until Ctrl-C. Returns the report.
pub async fn report(time: Duration, output: ReportForm) -> anyhow::Result<String> {
    let mut capture = Capture::start(&Request::default())?;
    let counting = Counting::start()?;
    let began = Instant::now();
    if output == ReportForm::Text {
        say(format_args!(
            "counting for {time:?} (Ctrl-C ends it sooner)"
        ));
    }
    let until = async {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            interrupted = tokio::signal::ctrl_c() => interrupted,
        }
    };
    capture.drain_until(until).await?;
    let statistics = Statistics {
        duration_ns: began.elapsed().as_nanos() as u64,
        programs: capture.run_statistics()?,
    };
    drop(counting);
    Ok(match output {
        ReportForm::Json => serde_json::to_string(&statistics)? + "\n",
        ReportForm::Text => text(&statistics),
    })
}

fn text(statistics: &Statistics) -> String {
    let seconds = Duration::from_nanos(statistics.duration_ns).as_secs_f64();
    let mut report = format!(
        "Cost over {seconds:.1} s, by the kernel's own run-time statistics (which add about 50 ns \
         a run)\n"
    );
    let all: u64 = statistics.programs.iter().map(|it| it.run_time_ns).sum();
    report += &rows(&statistics.programs);
    let share = all as f64 / 1e7 / seconds;
    let _ = writeln!(report, "  all together {share:.2} % of the time of one CPU");
    report
}

/// Formats one line a program.
pub fn rows(programs: &[ProgramStatistics]) -> String {
    let longest = programs.iter().map(|it| it.program.len()).max();
    let longest = longest.unwrap_or(0);
    let mut rows = String::new();
    for it in programs {
        let each = it.run_ns().map_or("-".to_owned(), |ns| ns.to_string());
        let _ = write!(
            rows,
            "  {:<longest$} {:>9} runs, {each:>5} ns each; ",
            it.program, it.runs
        );
        if let Some(count) = it.verified_instructions {
            let _ = write!(rows, "{count} instructions verified, ");
        }
        let _ = write!(rows, "{} bytes of machine code", it.jitted_bytes);
        if let Some(bytes) = it.memory_bytes {
            let _ = write!(rows, ", {bytes} bytes of memory");
        }
        rows.push('\n');
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(runs: u64) -> ProgramStatistics {
        ProgramStatistics {
            program: "state",
            hook: "inet_sock_set_state",
            runs,
            run_time_ns: runs * 200,
            verified_instructions: Some(900),
            jitted_bytes: 2_000,
            memory_bytes: Some(4_096),
        }
    }

    #[test]
    fn cost_is_reported_per_run_and_in_total() {
        let text = text(&Statistics {
            duration_ns: 2_000_000_000,
            programs: vec![program(1_000_000), program(0)],
        });
        for part in [
            "Cost over 2.0 s",
            "  state   1000000 runs,   200 ns each; 900 instructions verified, 2000 bytes of \
             machine code, 4096 bytes of memory\n",
            "  state         0 runs,     - ns each;",
            "  all together 10.00 % of the time of one CPU\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn figures_that_the_kernel_does_not_report_are_left_out() {
        let unknown = ProgramStatistics {
            verified_instructions: None,
            memory_bytes: None,
            ..program(1)
        };
        let text = rows(&[unknown]);
        assert!(
            text.ends_with("ns each; 2000 bytes of machine code\n"),
            "{text}"
        );
    }
}
