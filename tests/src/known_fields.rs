//! Fills in fields that a line omits because other lines of its connection, or the session line,
//! have them.

use std::collections::HashMap;

use serde_json::Value;

use crate::line::Line;

/// Collects fields from lines and fills them into others.
#[derive(Default)]
pub struct KnownFields {
    /// Wall clock minus CLOCK_MONOTONIC, in nanoseconds.
    offset_ns: Option<i128>,
    /// Values of the keys in [`SAME`], by the number (`conn`) of the connection or listener.
    sides: HashMap<u64, [Option<Value>; 2]>,
}

/// Keys with the same value in all lines of a connection.
const SAME: [&str; 2] = ["netns", "side"];

/// Fills in all lines of a trace. A connection's last line may be the first one that has a value.
pub fn complete(lines: &mut [Line]) {
    let mut fields = KnownFields::default();
    lines.iter().for_each(|line| fields.learn(line));
    lines.iter_mut().for_each(|line| fields.complete(line));
}

impl KnownFields {
    /// Collects the values of a line.
    pub fn learn(&mut self, Line(line): &Line) {
        if line["event"] == "session" {
            let mono_ns = line["mono_ns"].as_u64().map(i128::from);
            self.offset_ns = wall_ns(line).zip(mono_ns).map(|(wall, mono)| wall - mono);
        }
        if let Some(conn) = line["conn"].as_u64() {
            let known = self.sides.entry(conn).or_default();
            for (key, known) in SAME.iter().zip(&mut *known) {
                let said = line.get(key).filter(|it| !it.is_null());
                *known = known.take().or(said.cloned());
            }
            if let Some(side) = side_that_begins(line) {
                known[1].get_or_insert_with(|| side.into());
            }
        }
    }

    /// Fills in a line's `mono_ns`, and its connection's `netns` and `side`.
    pub fn complete(&self, Line(line): &mut Line) {
        let mono_ns = wall_ns(line).zip(self.offset_ns);
        let mono_ns = mono_ns.and_then(|(wall, offset)| u64::try_from(wall - offset).ok());
        let known = line["conn"].as_u64().and_then(|it| self.sides.get(&it));
        let Some(line) = line.as_object_mut() else {
            return;
        };
        if let Some(mono_ns) = mono_ns {
            line.entry("mono_ns").or_insert(mono_ns.into());
        }
        // A line omits `closed_mono_ns` if it equals the line's own time.
        let is = |key: &str, value: &str| line.get(key).is_some_and(|it| it == value);
        if is("event", "connection") && is("state", "CLOSE") {
            let mono_ns = line["mono_ns"].clone();
            line.entry("closed_mono_ns").or_insert(mono_ns);
        }
        for (key, known) in SAME.iter().zip(known.into_iter().flatten()) {
            if let Some(known) = known {
                line.entry(*key).or_insert(known.clone());
            }
        }
    }
}

/// Returns the side of a connection that begins with this line.
fn side_that_begins(line: &Value) -> Option<&'static str> {
    match (line["oldstate"].as_str()?, line["newstate"].as_str()?) {
        (_, "SYN_SENT") => Some("client"),
        ("LISTEN", "SYN_RECV" | "NEW_SYN_RECV") => Some("server"),
        _ => None,
    }
}

/// Returns `ts` in nanoseconds since 1970.
fn wall_ns(line: &Value) -> Option<i128> {
    let ts = line["ts"].as_str()?;
    let time = humantime::parse_rfc3339(ts).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    i128::try_from(since.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_gets_missing_fields_from_the_session_and_its_connection() {
        let session = json!({
            "event": "session", "ts": "2026-03-01T14:03:07.000000100Z", "mono_ns": 50,
        });
        let first = json!({
            "event": "transition", "conn": 2, "netns": 7, "oldstate": "CLOSE", "newstate": "SYN_SENT",
        });
        let mut fields = KnownFields::default();
        fields.learn(&Line(session));
        fields.learn(&Line(first));
        let mut line = Line(json!({
            "event": "transition", "ts": "2026-03-01T14:03:07.000000123Z", "conn": 2,
        }));
        fields.complete(&mut line);
        assert_eq!(line.0["mono_ns"], 73);
        assert_eq!(
            (&line.0["netns"], &line.0["side"]),
            (&json!(7), &json!("client"))
        );
    }
}
