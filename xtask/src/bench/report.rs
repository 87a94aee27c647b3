//! What was measured, as tables and as JSON.

use serde::Serialize;

use super::{
    machine::Machine,
    programs::Program,
    rows::{self, GOALS, Goal, Limit, Load, Row},
    spread::Spread,
    table::table,
    watcher::Cost,
};

/// A row under a load, once.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub round: usize,
    pub load: Load,
    pub row: &'static str,
    /// Operations a second.
    pub rate: f64,
    /// Of the untraced rate: the mean of that before and that after it.
    pub share: f64,
    /// Null where nobody watched.
    pub cost: Option<Cost>,
}

#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    /// Of tcptrace, with the commit where that is known.
    pub version: String,
    pub rounds: usize,
    /// How long each load was counted.
    pub seconds: f64,
    pub runs: Vec<Run>,
    pub programs: Vec<Program>,
    /// Rows that could not be measured, and why.
    pub failed: Vec<(String, String)>,
}

/// The first lines of BENCHMARKS.md.
const PREFACE: &str = "\
# Benchmarks

Written by `cargo xtask bench --write`, not by hand. Each figure is the median of the rounds, with
the smallest and the largest in parentheses. In a round each row is run once, in an order that
rotates, between two untraced runs; its share is its rate divided by the mean of theirs. The untraced
row is compared so as well, so its share tells how noisy the machine was. The loads are in `bench/`,
the rows in `xtask/src/bench/rows.rs`. `empty programs` is tcptrace with programs that return
at once, at the same hooks: what the kernel takes to run any.
";

impl Report {
    /// All of BENCHMARKS.md.
    pub fn document(&self) -> String {
        let count = |n: usize, what: &str| match n {
            1 => format!("1 {what}"),
            n => format!("{n} {what}s"),
        };
        format!(
            "{PREFACE}\n{}- tcptrace: {}\n- measured: {} of {} s\n\n{}",
            self.machine.list(),
            self.version,
            count(self.rounds, "round"),
            self.seconds,
            self.tables()
        )
    }

    /// The tables alone.
    pub fn tables(&self) -> String {
        let mut text = String::new();
        let goals: Vec<_> = GOALS.iter().filter_map(|goal| self.goal(goal)).collect();
        if !goals.is_empty() {
            let heading = ["goal", "limit", "measured", ""];
            text += &format!("## Goals\n\n{}\n", table(&heading, &goals));
        }
        for &load in rows::ALL {
            text += &self.load(load);
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
        let mut names: Vec<&str> = vec![];
        for run in self.runs.iter().filter(|run| run.load == load) {
            if !names.contains(&run.row) {
                names.push(run.row);
            }
        }
        if names.is_empty() {
            return String::new();
        }
        names.sort_by_key(|name| place(name));
        let cell = |spread: Option<Spread>, decimals| {
            spread.map_or_else(|| "-".to_owned(), |it| it.show(decimals))
        };
        let rows: Vec<Vec<String>> = names
            .into_iter()
            .map(|row| {
                let of = |figure: fn(&Run) -> Option<f64>| self.spread(row, load, figure);
                let cost = |figure: fn(&Cost) -> Option<f64>| self.cost(row, load, figure);
                vec![
                    row.to_owned(),
                    cell(of(|run| Some(run.share)), 3),
                    cell(of(|run| Some(run.rate)), 0),
                    cell(cost(|it| it.events.map(|n| n as f64)), 0),
                    cell(cost(|it| it.lost.map(|n| n as f64)), 0),
                    cell(cost(|it| Some(it.cpu_s)), 2),
                    cell(cost(|it| it.attach_ms), 0),
                    cell(cost(|it| it.rest_mib), 1),
                    cell(cost(|it| it.peak_mib), 1),
                ]
            })
            .collect();
        let heading = [
            "row",
            "share of untraced",
            load.unit(),
            "events",
            "lost",
            "CPU s",
            "attach ms",
            "rest MiB",
            "peak MiB",
        ];
        format!(
            "## Load: {}\n\n{}\n\n{}\n",
            load.name(),
            load.what(),
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

    /// A line of the table of goals; `None` when it was not measured.
    fn goal(&self, goal: &Goal) -> Option<Vec<String>> {
        let (row, load) = (goal.row, goal.load);
        let cost = |figure: fn(&Cost) -> Option<f64>| self.cost(row, load, figure);
        let (what, limit, measured, decimals, at_least) = match goal.limit {
            Limit::Share(limit) => {
                let share = self.spread(row, load, |run| Some(run.share));
                ("share of untraced", limit, share, 3, true)
            }
            Limit::Lost(limit) => {
                let lost = cost(|it| it.lost.map(|n| n as f64));
                ("events lost", limit, lost, 0, false)
            }
            Limit::Attach(limit) => ("attach ms", limit, cost(|it| it.attach_ms), 0, false),
            Limit::AtRest(limit) => ("MiB at rest", limit, cost(|it| it.rest_mib), 1, false),
            Limit::Peak(limit) => ("MiB at most", limit, cost(|it| it.peak_mib), 1, false),
            Limit::Shown(limit) => ("ms to the screen", limit, cost(|it| it.shown_ms), 1, false),
        };
        let measured = measured?;
        let met = match goal.limit {
            Limit::Share(_) => measured.median >= limit,
            // A single loss is one too many, whatever the other rounds were like.
            Limit::Lost(_) | Limit::Peak(_) => measured.max <= limit,
            Limit::Attach(_) | Limit::AtRest(_) | Limit::Shown(_) => measured.median <= limit,
        };
        Some(vec![
            format!("{row}: {what}"),
            format!("{} {limit}", if at_least { "≥" } else { "≤" }),
            measured.show(decimals),
            if met { "met" } else { "NOT MET" }.to_owned(),
        ])
    }

    fn cost(&self, row: &str, load: Load, figure: fn(&Cost) -> Option<f64>) -> Option<Spread> {
        let costs = self.runs_of(row, load).filter_map(|run| run.cost.as_ref());
        Spread::of(costs.filter_map(figure))
    }

    fn spread(&self, row: &str, load: Load, figure: fn(&Run) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.runs_of(row, load).filter_map(figure))
    }

    fn runs_of(&self, row: &str, load: Load) -> impl Iterator<Item = &Run> {
        let wanted = move |run: &&Run| run.row == row && run.load == load;
        self.runs.iter().filter(wanted)
    }
}

/// Rows stand in the order of the table in rows.rs, whatever order they were run in.
fn place(name: &str) -> Option<usize> {
    super::rows::ROWS
        .iter()
        .position(|row: &Row| row.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(round: usize, row: &'static str, rate: f64, share: f64) -> Run {
        let cost = Cost {
            attach_ms: Some(120.0),
            shown_ms: None,
            cpu_s: 1.5,
            rest_mib: Some(25.0),
            peak_mib: Some(40.0),
            events: Some(1000),
            lost: Some(round as u64 - 1),
        };
        Run {
            round,
            load: Load::Connections,
            row,
            rate,
            share,
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
            seconds: 3.0,
            runs: vec![
                run(1, "json", 960.0, 0.96),
                run(1, "untraced", 1000.0, 1.0),
                run(2, "untraced", 2000.0, 1.0),
                run(2, "json", 1960.0, 0.98),
            ],
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

    #[test]
    fn the_document_says_all_that_was_measured() {
        let document = report().document();
        let words: Vec<&str> = document
            .split([' ', '\n'])
            .filter(|it| !it.is_empty())
            .collect();
        let squeezed = words.join(" ");
        for line in [
            "- CPU: 2 × Fast CPU",
            "- measured: 2 rounds of 3 s",
            "| json: share of untraced | ≥ 0.95 | 0.970 (0.960 … 0.980) | met |",
            "| json: events lost | ≤ 0 | 0 (0 … 1) | NOT MET |",
            "| json: MiB at rest | ≤ 20 | 25.0 | NOT MET |",
            "| state | 2000 | 200 | 0 | - | 1234 | 4096 |",
            "- bpftrace: it ended at once",
        ] {
            assert!(squeezed.contains(line), "{line}\n{document}");
        }
    }

    #[test]
    fn the_rows_keep_their_order_and_have_medians() {
        let tables = report().tables();
        let lines: Vec<&str> = tables
            .lines()
            .skip_while(|line| !line.starts_with("## Load"))
            .filter(|line| line.starts_with("| untraced") || line.starts_with("| json"))
            .map(|line| line.trim_matches('|'))
            .collect();
        let cells = |line: &str| -> Vec<String> {
            line.split('|').map(|cell| cell.trim().to_owned()).collect()
        };
        assert_eq!(lines.len(), 2, "{tables}");
        assert_eq!(
            cells(lines[0])[..4],
            ["untraced", "1.000", "1500 (1000 … 2000)", "-"]
        );
        assert_eq!(
            cells(lines[1]),
            [
                "json",
                "0.970 (0.960 … 0.980)",
                "1460 (960 … 1960)",
                "1000",
                "0 (0 … 1)",
                "1.50",
                "120",
                "25.0",
                "40.0"
            ]
        );
    }

    #[test]
    fn goals_of_rows_that_were_not_run_are_left_out() {
        let tables = report().tables();
        assert!(!tables.contains("terminal"), "{tables}");
    }
}
