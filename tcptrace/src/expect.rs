//! `--expect`: parses and judges conditions on a trace, such as `accept_queue_p99@7878<10ms`.
//!
//! Pure: takes lines and returns judgements, at every depth. A condition is not met if the trace did
//! not observe the time or the count that it compares.

mod measured;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

pub use measured::{Measure, Measured};

use crate::duration::Human;
use crate::fields::{Kind, LateReason, Session, Verdict, Wanted};

/// A measured time, such as the p99 wait in the accept queue, or a count, such as overflows. A
/// condition compares it with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    AcceptQueue(Share),
    /// Handshakes of both sides.
    Handshake(Share),
    Connections,
    Servers,
    Clients,
    Accepted,
    Verdict(Verdict),
    Overflows,
    HalfOpenFailed,
    FailedAccepts,
    Retransmits,
    Resets,
    Incomplete,
    Lost,
    LateConnections,
    /// The waits in the accept queue that `--why` explains, by reason, added up.
    Late(LateReason),
}

/// A quantile of measured times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    P50,
    P90,
    P99,
    Max,
}

impl Share {
    const ALL: [(Share, &str); 4] = [
        (Share::P50, "p50"),
        (Share::P90, "p90"),
        (Share::P99, "p99"),
        (Share::Max, "max"),
    ];
}

impl Quantity {
    /// Returns every [`Quantity`] with its name in a condition.
    fn all() -> Vec<(String, Quantity)> {
        let mut all = vec![];
        for (share, name) in Share::ALL {
            all.push((format!("accept_queue_{name}"), Quantity::AcceptQueue(share)));
        }
        for (share, name) in Share::ALL {
            all.push((format!("handshake_{name}"), Quantity::Handshake(share)));
        }
        let counts = [
            ("connections", Quantity::Connections),
            ("servers", Quantity::Servers),
            ("clients", Quantity::Clients),
            ("accepted", Quantity::Accepted),
        ];
        all.extend(counts.map(|(name, quantity)| (name.to_owned(), quantity)));
        let verdicts = Verdict::ALL.map(|it| (it.name().to_owned(), Quantity::Verdict(it)));
        all.extend(verdicts);
        let counts = [
            ("overflows", Quantity::Overflows),
            ("half_open_failed", Quantity::HalfOpenFailed),
            ("failed_accepts", Quantity::FailedAccepts),
            ("retransmits", Quantity::Retransmits),
            ("resets", Quantity::Resets),
            ("incomplete", Quantity::Incomplete),
            ("lost", Quantity::Lost),
        ];
        all.extend(counts.map(|(name, quantity)| (name.to_owned(), quantity)));
        all.push(("late_connections".to_owned(), Quantity::LateConnections));
        let late = |it: LateReason| (format!("late_{}", it.name()), Quantity::Late(it));
        all.extend(LateReason::ALL.map(late));
        all
    }

    fn is_time(self) -> bool {
        matches!(
            self,
            Quantity::AcceptQueue(_) | Quantity::Handshake(_) | Quantity::Late(_)
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Less,
    AtMost,
    Greater,
    AtLeast,
    Equal,
    Other,
}

/// Longer signs come before their prefixes.
const RELATIONS: [(&str, Relation); 6] = [
    ("<=", Relation::AtMost),
    (">=", Relation::AtLeast),
    ("==", Relation::Equal),
    ("!=", Relation::Other),
    ("<", Relation::Less),
    (">", Relation::Greater),
];

/// One `--expect` condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The condition as it was given.
    text: String,
    quantity: Quantity,
    /// Only connections to this server port count; `None`: all.
    port: Option<u16>,
    relation: Relation,
    /// The value to compare with: a count, or a time in nanoseconds.
    value: u64,
}

impl Expectation {
    /// Returns the lines that measure this condition.
    pub fn wants(&self) -> Wanted {
        let more = match self.quantity {
            Quantity::FailedAccepts => Some(Kind::Accept),
            Quantity::Overflows => Some(Kind::Overflow),
            Quantity::Retransmits => Some(Kind::Retransmit),
            Quantity::Resets => Some(Kind::Reset),
            _ => None,
        };
        use Kind::{Connection, Histogram, Lost, Session, Summary};
        let always = [Session, Connection, Histogram, Lost, Summary];
        always.into_iter().chain(more).collect()
    }
}

impl FromStr for Expectation {
    /// One sentence that says what is wrong.
    type Err = String;

    fn from_str(text: &str) -> Result<Expectation, String> {
        let at = text.find(['<', '>', '=', '!']).ok_or_else(|| {
            "an expectation is a quantity, <, <=, >, >=, == or !=, and a value: \
             accept_queue_p99<10ms"
                .to_owned()
        })?;
        let (left, rest) = text.split_at(at);
        let (sign, relation) = RELATIONS
            .into_iter()
            .find(|(sign, _)| rest.starts_with(sign))
            .ok_or("the relations are <, <=, >, >=, == and !=")?;
        let (name, port) = match left.trim().split_once('@') {
            None => (left.trim(), None),
            Some((name, port)) => {
                let number = port.parse().ok().filter(|port| *port > 0);
                let number = number.ok_or_else(|| format!("'{port}' is no port, as in @7878"))?;
                (name, Some(number))
            }
        };
        let quantity = quantity(name)?;
        if quantity == Quantity::Lost && port.is_some() {
            return Err("events are lost by the trace, not by a port: lost==0".to_owned());
        }
        let value = rest[sign.len()..].trim();
        let value = match quantity.is_time() {
            true => time_ns(value).ok_or_else(|| {
                format!("'{value}' is no time: {name} wants one with a unit, such as 1.5ms")
            })?,
            false => value
                .parse()
                .map_err(|_| format!("'{value}' is no number: {name} is a count"))?,
        };
        Ok(Expectation {
            text: text.trim().to_owned(),
            quantity,
            port,
            relation,
            value,
        })
    }
}

fn quantity(name: &str) -> Result<Quantity, String> {
    let all = Quantity::all();
    let known = all.iter().find(|(it, _)| it == name);
    known.map(|(_, quantity)| *quantity).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        format!("'{name}' is no quantity; there are {}", names.join(", "))
    })
}

/// Parses a time such as `1.5ms` into nanoseconds. 0 needs no unit.
fn time_ns(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 60e9),
        ("h", 3600e9),
    ];
    if text == "0" {
        return Some(0);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let (_, scale) = UNITS.into_iter().find(|(it, _)| *it == unit.trim())?;
    Some((number.parse::<f64>().ok()? * scale).round() as u64)
}

/// The result of judging an expectation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    pub met: bool,
    /// Text for users: the condition, the result, and the measured value.
    pub text: String,
}

impl Expectation {
    /// Returns the server port that the condition is limited to.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Returns the reason why no line of a trace can show what the condition compares, if there is one.
    pub fn unseen(&self, session: &Session) -> Option<String> {
        measured::unseen(self.quantity, session)
    }

    /// Judges the condition by the measured values.
    pub fn judge(&self, measured: &Measured) -> Judgement {
        let measure = measured.measure(self.quantity, self.port);
        let holds = self.holds(&measure);
        let word = match holds {
            Some(true) => "holds",
            Some(false) | None => "NOT MET",
        };
        let value = self.value_text(&measure);
        let detail = match (holds, measure.why) {
            (None, Some(why)) => format!("not known: {why}{value}"),
            (Some(_), Some(why)) if !value.is_empty() => format!("{}, as {why}", &value[2..]),
            (_, Some(why)) => why,
            (_, None) => value.trim_start_matches("; ").to_owned(),
        };
        Judgement {
            met: holds == Some(true),
            text: format!("expected {}: {word}, {detail}", self.text),
        }
    }

    /// Returns whether the condition holds for every value within the measured bounds. `None` if it
    /// holds only for some of them.
    fn holds(&self, measure: &Measure) -> Option<bool> {
        let (least, most, value) = (measure.least, measure.most, self.value);
        if (least, most) == (0, None) {
            return None;
        }
        let below = |limit: u64| most.is_some_and(|most| most < limit);
        let either = |yes: bool, no: bool| match (yes, no) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        };
        let equal = either(
            least == value && most == Some(value),
            least > value || below(value),
        );
        let up_to = |limit: u64| either(most.is_some_and(|most| most <= limit), least > limit);
        let less = either(below(value), least >= value);
        match self.relation {
            Relation::Less => less,
            Relation::AtLeast => less.map(|it| !it),
            Relation::AtMost => up_to(value),
            Relation::Greater => up_to(value).map(|it| !it),
            Relation::Equal => equal,
            Relation::Other => equal.map(|it| !it),
        }
    }

    /// Formats the measured value: `; 23.41 µs`, `; at least 3`, or nothing if it is unknown.
    fn value_text(&self, measure: &Measure) -> String {
        let shown = |n: u64| match self.quantity.is_time() {
            true => Human(n).to_string(),
            false => n.to_string(),
        };
        match (measure.least, measure.most) {
            (least, Some(most)) if least == most => format!("; {}", shown(most)),
            (_, Some(most)) => format!("; at most {}", shown(most)),
            (0, None) => String::new(),
            (least, None) => format!("; at least {}", shown(least)),
        }
    }
}

/// Writes the condition as it was given.
impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
