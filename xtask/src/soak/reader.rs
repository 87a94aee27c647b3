//! Reads the JSON Lines of a tracer, and checks that they add up.

use std::io::{BufRead, BufReader, Read};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::churn::Made;

/// The connections that the lines of a tracer report.
#[derive(Debug, Default)]
pub struct Told {
    pub servers: u64,
    pub clients: u64,
    pub never_accepted: u64,
    /// Connections whose side is not known.
    pub sideless: u64,
    /// Connections that may lack an event.
    pub incomplete: u64,
    pub lines: u64,
    /// Whether each number of a connection has had its `connection` line.
    ended: Vec<bool>,
    summary: Option<Value>,
}

/// The fields of a line that are checked.
#[derive(Deserialize)]
struct Line<'a> {
    event: &'a str,
    #[serde(default)]
    conn: Option<u64>,
    #[serde(default)]
    side: Option<&'a str>,
    #[serde(default)]
    verdict: Option<&'a str>,
    #[serde(default)]
    complete: Option<bool>,
    #[serde(default)]
    went_well: u64,
}

impl Told {
    /// Reads all lines.
    pub fn read(lines: impl Read) -> Result<Told> {
        let mut told = Told::default();
        let mut lines = BufReader::with_capacity(1 << 16, lines);
        let mut line = String::new();
        while lines.read_line(&mut line)? > 0 {
            told.line(&line)
                .with_context(|| format!("line {}: {}", told.lines + 1, line.trim()))?;
            line.clear();
        }
        Ok(told)
    }

    fn line(&mut self, text: &str) -> Result<()> {
        let line: Line = serde_json::from_str(text)?;
        ensure!(
            (line.event == "session") == (self.lines == 0),
            "only the first line describes the session"
        );
        ensure!(self.summary.is_none(), "it follows the summary");
        self.lines += 1;
        match line.event {
            "connection" => {
                let number = line.conn.context("no number")? as usize;
                if self.ended.len() <= number {
                    self.ended.resize(number + 1, false);
                }
                ensure!(!self.ended[number], "connection {number} ended before");
                self.ended[number] = true;
                self.count(line.side, 1)?;
                self.never_accepted += u64::from(line.verdict == Some("never_accepted"));
                self.incomplete += u64::from(line.complete == Some(false));
            }
            "histogram" => self.count(line.side, line.went_well)?,
            "summary" => self.summary = Some(serde_json::from_str(text)?),
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, side: Option<&str>, n: u64) -> Result<()> {
        match side {
            Some("server") => self.servers += n,
            Some("client") => self.clients += n,
            // Its beginning was lost. The summary says why.
            None => self.sideless += n,
            Some(side) => bail!("a connection of side {side}"),
        }
        Ok(())
    }

    /// Compares the lines with the summary and with the connections that were made.
    pub fn check(&self, made: &Made) -> Result<()> {
        let summary = self.summary.as_ref().context("it wrote no summary")?;
        let hooks = summary["hook_counts"].as_object();
        for (hook, counts) in hooks.context("no counts of hooks")? {
            let [seen, filtered, emitted, lost] = ["seen", "filtered", "emitted", "lost"]
                .map(|name| counts[name].as_u64().unwrap_or(u64::MAX / 8));
            ensure!(lost == 0, "{lost} events of {hook} were lost");
            ensure!(
                seen == filtered + emitted + lost,
                "{hook}: {seen} seen, but {filtered} filtered and {emitted} emitted"
            );
        }
        for (what, told, summed, made) in [
            ("servers", self.servers, "servers", made.established),
            ("clients", self.clients, "clients", made.connects),
        ] {
            ensure!(told == made, "{told} {what} are reported, {made} were made");
            ensure!(
                summary[summed] == told,
                "{told} {what} are reported, the summary has {}",
                summary[summed]
            );
        }
        ensure!(
            self.never_accepted == made.never_accepted,
            "{} connections are reported as never accepted, {} were not",
            self.never_accepted,
            made.never_accepted
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: Made = Made {
        connects: 3,
        established: 2,
        never_accepted: 1,
    };

    const SESSION: &str = r#"{"event":"session"}"#;
    const LINES: [&str; 4] = [
        r#"{"event":"connection","conn":1,"side":"server","verdict":"queued","complete":true}"#,
        r#"{"event":"connection","conn":2,"side":"server","verdict":"never_accepted"}"#,
        r#"{"event":"histogram","side":"client","went_well":2}"#,
        r#"{"event":"connection","conn":9,"side":"client","complete":false}"#,
    ];

    fn summary(counts: &str) -> String {
        format!(r#"{{"event":"summary","servers":2,"clients":3,"hook_counts":{{"a":{counts}}}}}"#)
    }

    fn check(lines: &[&str], counts: &str) -> Result<Told> {
        let summary = summary(counts);
        let text = [&[SESSION], lines, &[&summary]].concat().join("\n");
        let told = Told::read(text.as_bytes())?;
        told.check(&MADE)?;
        Ok(told)
    }

    const SOUND: &str = r#"{"seen":9,"filtered":2,"emitted":7,"lost":0}"#;

    #[test]
    fn connections_and_counts_of_histograms_are_added() {
        let told = check(&LINES, SOUND).unwrap();
        assert_eq!((told.servers, told.clients), (2, 3));
        assert_eq!((told.never_accepted, told.incomplete), (1, 1));
        assert_eq!(told.lines, 6);
    }

    #[test]
    fn a_missing_connection_is_an_error() {
        for left_out in 0..LINES.len() {
            let mut lines = LINES.to_vec();
            lines.remove(left_out);
            let error = check(&lines, SOUND).unwrap_err().to_string();
            assert!(error.contains("reported"), "{error}");
        }
    }

    #[test]
    fn a_connection_that_ends_twice_is_an_error() {
        let twice = [LINES[0], LINES[0], LINES[1], LINES[2], LINES[3]];
        let error = format!("{:#}", check(&twice, SOUND).unwrap_err());
        assert!(error.contains("connection 1 ended before"), "{error}");
    }

    #[test]
    fn lost_and_unaccounted_events_are_errors() {
        for (counts, reason) in [
            (
                r#"{"seen":9,"filtered":2,"emitted":6,"lost":1}"#,
                "1 events of a were lost",
            ),
            (
                r#"{"seen":9,"filtered":2,"emitted":6,"lost":0}"#,
                "a: 9 seen, but 2 filtered and 6 emitted",
            ),
        ] {
            let error = check(&LINES, counts).unwrap_err().to_string();
            assert_eq!(error, reason);
        }
    }

    #[test]
    fn a_trace_without_its_summary_is_an_error() {
        let told = Told::read(format!("{SESSION}\n").as_bytes()).unwrap();
        let error = told.check(&MADE).unwrap_err().to_string();
        assert_eq!(error, "it wrote no summary");
    }
}
