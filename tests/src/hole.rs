//! What a failing scenario says about the one hole that the kernel may have.
//!
//! A kernel that was hardened for sandboxes may run no BPF program while its CPU is at a thread of
//! init (ARCHITECTURE.md, "The kernel skips programs"). A scenario waits or looks in vain for what
//! happened then, though tcptrace is right. So it names the evidence, and `cargo xtask test` plays
//! that scenario, and no other, once more.

use crate::trace::Line;
use crate::witness::{CLOCKS_APART_NS, Seen};

/// How the line begins that xtask/src/test/again.rs looks for.
const MARKER: &str = "the kernel ran no program here: ";

/// One line with the state changes that came on top of init and that tcptrace, while it was there,
/// has not told. `None` without any.
///
/// It knows of no filter and no depth: what they leave out counts as well, if it came on top of
/// init.
pub fn evidence(lines: &[Line], testimony: &[Seen]) -> Option<String> {
    let at = |line: &Line| line.0["mono_ns"].as_u64();
    let summary = lines.last().filter(|line| line.0["event"] == "summary");
    let present = at(lines.first()?)?..=summary.and_then(at).unwrap_or(u64::MAX);
    let missed: Vec<String> = testimony
        .iter()
        .filter(|seen| seen.on_init && present.contains(&seen.mono_ns))
        .filter(|seen| !lines.iter().any(|line| tells(line, seen)))
        .map(|seen| format!("{} of {}", seen.step, seen.ends))
        .collect();
    let missed = (!missed.is_empty()).then(|| missed.join(", "))?;
    Some(format!("{MARKER}{missed} came on top of init"))
}

/// Whether the line is about this state change. It never panics: the scenario has failed already,
/// and may have failed by a line that is not as it should be.
fn tells(Line(line): &Line, seen: &Seen) -> bool {
    let number = |name| line[name].as_u64().unwrap_or(0);
    let port = |name, port: u16| number(name) == u64::from(port);
    line["event"] == "transition"
        && line.get("source").is_none()
        && line["oldstate"] == *seen.step.0
        && line["newstate"] == *seen.step.1
        // The witness leaves it open for a client that begins to connect.
        && (seen.ends.lport == 0 || port("lport", seen.ends.lport))
        && port("rport", seen.ends.rport)
        && number("mono_ns").abs_diff(seen.mono_ns) < CLOCKS_APART_NS
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::witness::{Ends, Step};

    const SECOND: u64 = 1_000_000_000;

    fn seen(second: u64, on_init: bool) -> Seen {
        Seen {
            mono_ns: second * SECOND,
            ends: Ends {
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
    fn what_came_on_top_of_init_and_was_not_told_is_named() {
        let told = evidence(&[session()], &[seen(2, false), seen(5, true)]).unwrap();
        assert_eq!(
            told,
            "the kernel ran no program here: \
             CLOSING→CLOSE of [127.0.0.1]:7878 [127.0.0.1]:40001 came on top of init"
        );
    }

    #[test]
    fn what_came_on_top_of_another_task_or_was_told_is_not() {
        assert_eq!(evidence(&[session()], &[seen(5, false)]), None);
        assert_eq!(
            evidence(&[session(), transition(5)], &[seen(5, true)]),
            None
        );
        // Another one of the same ends.
        let earlier = evidence(&[session(), transition(3)], &[seen(5, true)]);
        assert!(earlier.is_some());
    }

    #[test]
    fn what_tcptrace_was_not_there_for_is_not() {
        let summary = Line(json!({ "event": "summary", "mono_ns": 4 * SECOND }));
        assert_eq!(evidence(&[], &[seen(2, true)]), None);
        assert_eq!(evidence(&[session()], &[seen(0, true)]), None);
        let ended = [session(), summary];
        assert_eq!(evidence(&ended, &[seen(5, true)]), None);
        assert!(evidence(&ended, &[seen(3, true)]).is_some());
    }
}
