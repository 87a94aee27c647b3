//! The measurements as tables and as JSON.

use serde::Serialize;

use super::{
    load::Load,
    machine::Machine,
    programs::Program,
    rows::{Figure, GOALS, Goal, Limit, ROWS, UNTRACED},
    server,
    spread::Spread,
    table::table,
    watcher::Cost,
};

/// One run of a row under a load.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub round: u16,
    pub load: Load,
    pub row: &'static str,
    /// CPU time of the load, in microseconds per operation.
    pub load_us: f64,
    /// Mean CPU time of the untraced runs right before and after, in microseconds per operation.
    pub untraced_us: f64,
    /// Number of operations of the load.
    pub operations: u32,
    /// Null without a watcher.
    pub cost: Option<Cost>,
}

impl Run {
    /// The kernel side: CPU time of the load beyond untraced runs, in microseconds per operation.
    pub fn kernel_us(&self) -> f64 {
        self.load_us - self.untraced_us
    }

    /// CPU time of the tool, in microseconds per operation.
    pub fn tool_us(&self) -> f64 {
        let cpu_s = self.cost.as_ref().map_or(0.0, |cost| cost.cpu_s);
        cpu_s * 1e6 / f64::from(self.operations)
    }
}

#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    /// Version of tcptrace, with the commit if known.
    pub version: String,
    pub rounds: u16,
    /// Number of connections of a run.
    pub connections: u32,
    pub runs: Vec<Run>,
    pub server: Vec<server::Run>,
    pub programs: Vec<Program>,
    /// Rows that could not be measured, with the reasons.
    pub failed: Vec<(String, String)>,
}

/// The first lines of BENCHMARKS.md.
const PREFACE: &str = "\
# Benchmarks

Written by `cargo xtask bench --write`. A share of a rate depends on the machine and its neighbours, so
CPU time is measured. One pinned thread plays a load and reads its own CPU clock; on loopback the softirqs
of both ends run in it. Its CPU time beyond the untraced runs right before and after is *kernel*: the eBPF
programs or packet taps. *tool* is the CPU time of the tracing process until it has nothing left to
do. Each figure is the median of the rounds, with the smallest and the largest in parentheses; in a round
the rows come in random order. The row `untraced` is compared in the same way: its distance from 0 is the
noise. `empty programs` is tcptrace with programs that return at once. The rows are in
`xtask/src/bench/rows.rs`, the loads in `load.rs` and `server.rs` beside it.
";

impl Report {
    /// Returns the whole BENCHMARKS.md.
    pub fn document(&self) -> String {
        format!(
            "{PREFACE}\n{}- tcptrace: {}\n- measured: {} rounds of {} connections\n\n{}",
            self.machine.list(),
            self.version,
            self.rounds,
            self.connections,
            self.tables()
        )
    }

    /// Returns only the tables.
    pub fn tables(&self) -> String {
        let mut text = String::new();
        let goals: Vec<_> = GOALS.iter().filter_map(|goal| self.goal(goal)).collect();
        if !goals.is_empty() {
            let heading = ["goal", "limit", "measured", ""];
            text += &format!("## Goals\n\n{}\n", table(&heading, &goals));
        }
        for load in Load::ALL {
            text += &self.load(load);
        }
        if !self.server.is_empty() {
            text += &server::section(&self.server);
        }
        if !self.programs.is_empty() {
            text += &self.programs();
        }
        if !self.failed.is_empty() {
            text += "## Not measured\n\n";
            for (row, why) in &self.failed {
                text += &format!("- {row}: {why}\n");
            }
        }
        text.trim_end().to_owned() + "\n"
    }

    fn load(&self, load: Load) -> String {
        let cell = |spread: Option<Spread>, decimals| {
            spread.map_or_else(|| "-".to_owned(), |it| it.show(decimals))
        };
        let mut rows = vec![];
        // The rows are in the order of the table, not in the order in which they were measured.
        for row in ROWS.iter().map(|row| row.name) {
            let of = |figure: fn(&Run) -> f64| self.spread(row, load, move |it| Some(figure(it)));
            let cost = |figure: fn(&Cost) -> Option<f64>| self.cost(row, load, figure);
            let Some(kernel) = of(Run::kernel_us) else {
                continue;
            };
            let decimals = if load == Load::Syscalls { 3 } else { 2 };
            rows.push(vec![
                row.to_owned(),
                kernel.show(decimals),
                cell(of(Run::tool_us), decimals),
                cell(of(|it| it.kernel_us() + it.tool_us()), decimals),
                cell(cost(|it| it.events.map(|n| n as f64)), 0),
                cell(cost(|it| it.lost.map(|n| n as f64)), 0),
                cell(cost(|it| it.attach_ms), 0),
                cell(cost(|it| it.rest_mib), 1),
                cell(cost(|it| it.peak_mib), 1),
            ]);
        }
        if rows.is_empty() {
            return String::new();
        }
        let untraced = self.spread(UNTRACED, load, |run| Some(run.load_us));
        let heading = [
            "row",
            "kernel, µs",
            "tool, µs",
            "sum",
            "events",
            "lost",
            "attach ms",
            "rest MiB",
            "peak MiB",
        ];
        format!(
            "## Load: {}\n\n{} Microseconds of CPU time a {}; untraced {}.\n\n{}\n",
            load.name(),
            load.what(),
            load.unit(),
            cell(untraced, 2),
            table(&heading, &rows)
        )
    }

    fn programs(&self) -> String {
        let mut ran: Vec<&Program> = self.programs.iter().collect();
        ran.sort_by_key(|it| std::cmp::Reverse(it.run_time_ns));
        let rows: Vec<Vec<String>> = ran
            .into_iter()
            .map(|it| {
                let unknown = || "-".to_owned();
                vec![
                    it.program.clone(),
                    it.runs.to_string(),
                    it.ns().map_or_else(unknown, |ns| format!("{ns:.0}")),
                    format!("{:.0}", it.run_time_ns as f64 / 1e6),
                    it.verified_instructions
                        .map_or_else(unknown, |n| n.to_string()),
                    it.jitted_bytes.to_string(),
                    it.memory_bytes.map_or_else(unknown, |n| n.to_string()),
                ]
            })
            .collect();
        let heading = [
            "program",
            "runs",
            "ns a run",
            "ms in all",
            "instructions verified",
            "bytes of machine code",
            "bytes of memory",
        ];
        format!(
            "## The eBPF programs under the connections\n\nBy the kernel's own run-time statistics, \
             which add some 50 ns to each run; in a round of their own.\n\n{}\n",
            table(&heading, &rows)
        )
    }

    /// Returns a row of the table of goals; `None` if it was not measured.
    fn goal(&self, goal: &Goal) -> Option<Vec<String>> {
        let (what, decimals) = match goal.figure {
            Figure::Kernel => ("kernel, µs a connection", 2),
            Figure::Sum => ("kernel and tool, µs a connection", 2),
            Figure::Lost => ("events lost", 0),
            Figure::Attach => ("attach ms", 0),
            Figure::AtRest => ("MiB at rest", 1),
            Figure::Peak => ("MiB at most", 1),
        };
        let measured = self.figure(goal.row, goal.figure)?;
        let (limit, shown) = match goal.limit {
            Limit::AtMost(limit) => (limit, format!("≤ {limit}")),
            Limit::OfRow(times, other) => {
                let limit = times * self.figure(other, goal.figure)?.median;
                (limit, format!("≤ {limit:.decimals$} ({times} × {other})"))
            }
        };
        // One lost event is too many, so the worst round counts.
        let is_worst = matches!(goal.figure, Figure::Lost | Figure::Peak);
        let figure = if is_worst {
            measured.max
        } else {
            measured.median
        };
        Some(vec![
            format!("{}: {what}", goal.row),
            shown,
            measured.show(decimals),
            if figure <= limit { "met" } else { "NOT MET" }.to_owned(),
        ])
    }

    fn figure(&self, row: &str, figure: Figure) -> Option<Spread> {
        let load = Load::Connections;
        let cost = |figure: fn(&Cost) -> Option<f64>| self.cost(row, load, figure);
        match figure {
            Figure::Kernel => self.spread(row, load, |it| Some(it.kernel_us())),
            Figure::Sum => self.spread(row, load, |it| Some(it.kernel_us() + it.tool_us())),
            Figure::Lost => cost(|it| it.lost.map(|n| n as f64)),
            Figure::Attach => cost(|it| it.attach_ms),
            Figure::AtRest => cost(|it| it.rest_mib),
            Figure::Peak => cost(|it| it.peak_mib),
        }
    }

    fn cost(&self, row: &str, load: Load, figure: fn(&Cost) -> Option<f64>) -> Option<Spread> {
        self.spread(row, load, |run| figure(run.cost.as_ref()?))
    }

    fn spread(
        &self,
        row: &str,
        load: Load,
        figure: impl Fn(&Run) -> Option<f64>,
    ) -> Option<Spread> {
        let mine = self
            .runs
            .iter()
            .filter(|it| it.row == row && it.load == load);
        Spread::of(mine.filter_map(figure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(round: u16, row: &'static str, load_us: f64, cpu_s: f64) -> Run {
        let cost = Cost {
            attach_ms: Some(120.0),
            cpu_s,
            rest_mib: Some(25.0),
            peak_mib: Some(28.0),
            events: Some(1000),
            lost: Some(u64::from(round) - 1),
        };
        Run {
            round,
            load: Load::Connections,
            row,
            load_us,
            untraced_us: 10.0,
            operations: 1_000_000,
            cost: (row != "untraced").then_some(cost),
        }
    }

    fn report() -> Report {
        Report {
            machine: Machine {
                cpu: Some("Fast CPU".into()),
                cpus: Some(2),
                memory_mib: Some(4096),
                kernel: Some("6.12.1".into()),
                distribution: Some("Some Linux".into()),
                load_average: Some(0.25),
                ftrace: vec![],
                peers: vec![],
            },
            version: "0.1.0".into(),
            rounds: 2,
            connections: 1_000_000,
            runs: vec![
                run(1, "json", 12.0, 3.0),
                run(1, "untraced", 10.0, 0.0),
                run(1, "tcplife", 22.0, 12.0),
                run(2, "untraced", 10.5, 0.0),
                run(2, "json", 13.0, 4.0),
            ],
            server: vec![],
            programs: vec![Program {
                program: "state".into(),
                runs: 2_000,
                run_time_ns: 400_000,
                verified_instructions: None,
                jitted_bytes: 1_234,
                memory_bytes: Some(4_096),
            }],
            failed: vec![("bpftrace".into(), "it ended at once".into())],
        }
    }

    /// Returns the document without the padding of its tables.
    fn squeezed() -> String {
        let document = report().document();
        let words: Vec<&str> = document.split_whitespace().collect();
        words.join(" ")
    }

    #[test]
    fn the_document_has_all_measurements() {
        let document = squeezed();
        for line in [
            "- CPU: 2 × Fast CPU",
            "- measured: 2 rounds of 1000000 connections",
            "| json: kernel and tool, µs a connection | ≤ 6.00 (0.25 × tcplife) \
             | 6.00 (5.00 … 7.00) | met |",
            "| json: events lost | ≤ 0 | 0 (0 … 1) | NOT MET |",
            "| json: MiB at rest | ≤ 20 | 25.0 | NOT MET |",
            "| state | 2000 | 200 | 0 | - | 1234 | 4096 |",
            "- bpftrace: it ended at once",
        ] {
            assert!(document.contains(line), "{line}\n{document}");
        }
    }

    #[test]
    fn rows_have_the_medians_of_kernel_tool_and_sum() {
        let document = squeezed();
        for line in [
            "| untraced | 0.25 (0.00 … 0.50) | 0.00 | 0.25 (0.00 … 0.50) | - |",
            "| json | 2.50 (2.00 … 3.00) | 3.50 (3.00 … 4.00) | 6.00 (5.00 … 7.00) | 1000 | \
             0 (0 … 1) | 120 | 25.0 | 28.0 |",
            "| tcplife | 12.00 | 12.00 | 24.00 |",
        ] {
            assert!(document.contains(line), "{line}\n{document}");
        }
    }

    #[test]
    fn goals_of_rows_that_were_not_run_are_left_out() {
        let document = squeezed();
        assert!(!document.contains("| record:"), "{document}");
    }
}
