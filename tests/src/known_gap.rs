//! The known gap: state changes that the kernel hides from every BPF program.
//!
//! A kernel that was hardened for sandboxes may run no BPF program while its CPU runs a thread of
//! init (ARCHITECTURE.md, "The kernel skips programs"). A scenario then fails although tcptrace is
//! right. It prints the evidence, and `cargo xtask test` runs that scenario, and no other, once
//! more.

use crate::trace::Line;
use crate::witness::{CLOCKS_APART_NS, Seen};

/// The prefix of the line that xtask/src/test/rerun.rs looks for.
const MARKER: &str = "the kernel ran no program here: ";

/// Returns one line with the state changes that interrupted init while tcptrace ran and that its
/// lines do not report. Returns `None` if there are none.
///
/// Filters and depths are ignored: changes that they leave out count as well.
pub fn evidence(lines: &[Line], testimony: &[Seen]) -> Option<String> {
    let at = |line: &Line| line.0["mono_ns"].as_u64();
    let summary = lines.last().filter(|line| line.0["event"] == "summary");
    let present = at(lines.first()?)?..=summary.and_then(at).unwrap_or(u64::MAX);
    let missed: Vec<String> = testimony
        .iter()
        .filter(|seen| seen.on_init && present.contains(&seen.mono_ns))
        .filter(|seen| !lines.iter().any(|line| reports(line, seen)))
        .map(|seen| format!("{} of {}", seen.step, seen.tuple))
        .collect();
    let missed = (!missed.is_empty()).then(|| missed.join(", "))?;
    Some(format!("{MARKER}{missed} came on top of init"))
}

/// Whether the line reports this state change. It never panics, because the scenario has failed
/// already, and perhaps because of a malformed line.
fn reports(Line(line): &Line, seen: &Seen) -> bool {
    let number = |name| line[name].as_u64().unwrap_or(0);
    let port = |name, port: u16| number(name) == u64::from(port);
    line["event"] == "transition"
        && line.get("source").is_none()
        && line["oldstate"] == *seen.step.0
        && line["newstate"] == *seen.step.1
        // The witness reports port 0 for a client that begins to connect.
        && (seen.tuple.lport == 0 || port("lport", seen.tuple.lport))
        && port("rport", seen.tuple.rport)
        && number("mono_ns").abs_diff(seen.mono_ns) < CLOCKS_APART_NS
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::witness::{Step, Tuple};

    const SECOND: u64 = 1_000_000_000;

    fn seen(second: u64, on_init: bool) -> Seen {
        Seen {
            mono_ns: second * SECOND,
            tuple: Tuple {
                laddr: [127, 0, 0, 1].into(),
                lport: 7878,
                raddr: [127, 0, 0, 1].into(),
                rport: 40001,
            },
            step: Step("CLOSING".into(), "CLOSE".into()),
            on_init,
            stack: vec![],
        }
    }

    fn session() -> Line {
        Line(json!({ "event": "session", "mono_ns": SECOND }))
    }

    fn transition(second: u64) -> Line {
        Line(json!({
            "event": "transition", "mono_ns": second * SECOND + 1,
            "oldstate": "CLOSING", "newstate": "CLOSE", "lport": 7878, "rport": 40001,
        }))
    }

    #[test]
    fn an_unreported_change_that_interrupted_init_is_evidence() {
        let line = evidence(&[session()], &[seen(2, false), seen(5, true)]).unwrap();
        assert_eq!(
            line,
            "the kernel ran no program here: \
             CLOSING→CLOSE of [127.0.0.1]:7878 [127.0.0.1]:40001 came on top of init"
        );
    }

    #[test]
    fn a_change_that_interrupted_another_task_or_was_reported_is_no_evidence() {
        assert_eq!(evidence(&[session()], &[seen(5, false)]), None);
        assert_eq!(
            evidence(&[session(), transition(5)], &[seen(5, true)]),
            None
        );
        // A later change of the same tuple.
        let earlier = evidence(&[session(), transition(3)], &[seen(5, true)]);
        assert!(earlier.is_some());
    }

    #[test]
    fn a_change_before_or_after_the_trace_is_no_evidence() {
        let summary = Line(json!({ "event": "summary", "mono_ns": 4 * SECOND }));
        assert_eq!(evidence(&[], &[seen(2, true)]), None);
        assert_eq!(evidence(&[session()], &[seen(0, true)]), None);
        let ended = [session(), summary];
        assert_eq!(evidence(&ended, &[seen(5, true)]), None);
        assert!(evidence(&ended, &[seen(3, true)]).is_some());
    }
}
