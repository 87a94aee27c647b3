//! Labels of a diagram, common to text and Mermaid.

use std::fmt::{self, Display};

use super::*;
use crate::duration::Human;
use crate::fields::Side;

/// Returns the time relative to the diagram's zero: `0`, `+44.06 µs`, `+423.741 ms`, `−1.418 ms`.
/// The resolution is a microsecond below ten seconds. The text has at most 11 characters below 100
/// 000 seconds.
pub fn offset(diagram: &Diagram, at_ns: u64) -> String {
    let zero = diagram.zero_ns;
    let sign = match at_ns.cmp(&zero) {
        std::cmp::Ordering::Less => '−',
        std::cmp::Ordering::Equal => return "0".to_owned(),
        std::cmp::Ordering::Greater => '+',
    };
    match at_ns.abs_diff(zero) {
        ns @ 0..1_000_000 => format!("{sign}{}", Human(ns)),
        ns @ 1_000_000..1_000_000_000 => {
            format!("{sign}{}.{:03} ms", ns / 1_000_000, ns / 1_000 % 1_000)
        }
        ns => {
            let seconds = ns / 1_000_000_000;
            let decimals = 6_usize.saturating_sub(seconds.ilog10() as usize);
            let micros = format!("{:06}", ns / 1_000 % 1_000_000);
            match decimals {
                0 => format!("{sign}{seconds} s"),
                _ => format!("{sign}{seconds}.{} s", &micros[..decimals]),
            }
        }
    }
}

/// Returns `client` or `server`, or `peer` for an end that is not traced or whose side is unknown.
pub fn role(diagram: &Diagram, end: &Endpoint) -> &'static str {
    let side = |end: &Endpoint| end.subject.as_ref().and_then(|it| it.side);
    let other = if std::ptr::eq(end, &diagram.left) {
        &diagram.right
    } else {
        &diagram.left
    };
    match (side(end), side(other)) {
        (Some(Side::Client), _) => "client",
        (Some(Side::Server), _) => "server",
        (None, Some(Side::Server)) => "client",
        (None, Some(Side::Client)) if !both_call(diagram) => "server",
        _ => "peer",
    }
}

/// Returns whether both ends called connect(): a client received a SYN where it expected a SYN-ACK.
fn both_call(diagram: &Diagram) -> bool {
    diagram.items.iter().any(|item| match &item.what {
        ItemKind::State(span) => {
            span.state == State::SynRecv
                && span.transition.as_ref().map(|it| it.oldstate) == Some(State::SynSent)
        }
        _ => false,
    })
}

/// Returns possible labels of an arrow, the longest first.
pub fn labels(x: &Arrow) -> Vec<String> {
    let again = if x.again { " again" } else { "" };
    let about = match x.evidence {
        Evidence::Estimated => "≈ ",
        Evidence::Seen | Evidence::Inferred => "",
    };
    let kind = format!("{about}{}{again}", x.kind.name());
    let mut labels = vec![];
    if let Some(header) = &x.header {
        let numbers = Numbers(header);
        if header.len > 0 {
            labels.push(format!("{kind} {numbers} len {}", header.len));
        }
        labels.push(format!("{kind} {numbers}"));
    }
    if let Some(reason) = &x.reason {
        labels.push(format!("{kind} {reason}"));
    }
    labels.push(kind);
    labels
}

/// Displays as `seq 0 ack 1`. The numbers are relative if the initial sequence numbers are known.
struct Numbers<'a>(&'a Header);

impl Display for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let x = self.0;
        write!(f, "seq {}", x.rel_seq.unwrap_or(x.seq))?;
        match x.ack {
            Some(ack) => write!(f, " ack {}", x.rel_ack.unwrap_or(ack)),
            None => Ok(()),
        }
    }
}

/// Returns the text of a mark; `None` if an arrow shows it.
pub fn mark(kind: &MarkKind) -> Option<String> {
    Some(match kind {
        MarkKind::Overflow(x) => {
            let fate = if x.aborted { "reset" } else { "dropped" };
            format!("{} {fate}: queue full", Kind::from(x.dropped).name())
        }
        MarkKind::Retransmit { what, .. } if *what == Kind::Data => "data sent again".to_owned(),
        MarkKind::Retransmit { .. } => return None,
        MarkKind::Reset(x) => format!("RST: {}", x.rst_reason.as_ref()?),
        MarkKind::SocketFreed { .. } => "socket gone".to_owned(),
        MarkKind::BucketEnded(ended) => format!("{ended:?}").to_lowercase(),
        MarkKind::TraceEnds { .. } => "trace ends".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_has_microseconds_and_at_most_11_characters() {
        let diagram = Diagram {
            left: Endpoint::default(),
            right: Endpoint::default(),
            items: vec![],
            zero_ns: 2_000_000_000,
            end_ns: 0,
            segments: false,
            left_out: 0,
        };
        for (at_ns, text) in [
            (2_000_000_000, "0"),
            (2_000_044_056, "+44.06 µs"),
            (2_423_741_500, "+423.741 ms"),
            (1_998_582_000, "−1.418 ms"),
            (1_000, "−1.999999 s"),
            (61_946_123_000, "+59.94612 s"),
            (90_001_000_000_000, "+89999.00 s"),
        ] {
            assert_eq!(offset(&diagram, at_ns), text);
            assert!(text.chars().count() <= 11);
        }
    }
}
