//! The counts of received and lost events that a watcher prints at its end.

use serde_json::Value;

/// Counts of all hooks together; `None` if the watcher does not print them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    pub events: Option<u64>,
    pub lost: Option<u64>,
}

impl Balance {
    /// Parses the summary of `tcptrace -o json`, its last line.
    pub fn of_json(output: &str) -> Balance {
        let last = output.trim_end().lines().last().unwrap_or_default();
        let summary: Value = serde_json::from_str(last).unwrap_or_default();
        let Some(hooks) = summary["hook_counts"].as_object() else {
            return Balance::default();
        };
        let sum = |name: &str| hooks.values().map(|hook| hook[name].as_u64()).sum();
        Balance {
            events: sum("emitted"),
            lost: sum("lost"),
        }
    }

    /// Parses messages of other tools: `Lost 5 events`, `5 packets dropped by kernel`.
    pub fn of_messages(messages: &str) -> Balance {
        let lost = messages.lines().filter_map(|line| {
            let line = line.to_lowercase();
            number_before(&line, " packets dropped by kernel").or_else(|| {
                let (_, rest) = line.split_once("lost ")?;
                rest.split(' ').next()?.parse().ok()
            })
        });
        Balance {
            events: None,
            lost: lost.reduce(|sum, n| sum + n),
        }
    }
}

/// Returns the number before `unit`.
fn number_before(line: &str, unit: &str) -> Option<u64> {
    let (before, _) = line.split_once(unit)?;
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balance(events: impl Into<Option<u64>>, lost: impl Into<Option<u64>>) -> Balance {
        Balance {
            events: events.into(),
            lost: lost.into(),
        }
    }

    #[test]
    fn the_events_and_lost_events_of_all_hooks_are_summed() {
        let summary = r#"{"event":"connection"}
{"event":"summary","hook_counts":{"a":{"seen":9,"emitted":7,"lost":2},"b":{"emitted":1,"lost":0}}}
"#;
        assert_eq!(Balance::of_json(summary), balance(8, 2));
        // The watcher was killed before it wrote its summary.
        assert_eq!(
            Balance::of_json(r#"{"event":"connection"}"#),
            Balance::default()
        );
        assert_eq!(Balance::of_json(""), Balance::default());
    }

    #[test]
    fn lost_events_are_parsed_from_messages_of_other_tools() {
        let lost = |text| Balance::of_messages(text);
        assert_eq!(
            lost("Lost 5 events\nlost 6 events on CPU #1!\n"),
            balance(None, 11)
        );
        let tcpdump = "10 packets captured\n20 packets received by filter\n\
            3 packets dropped by kernel\n";
        assert_eq!(lost(tcpdump), balance(None, 3));
        assert_eq!(lost("attached\n"), balance(None, None));
    }
}
