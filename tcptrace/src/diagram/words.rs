//! What a diagram says beside its lanes and arrows, in text and in Mermaid alike.

use std::fmt::{self, Display};

use super::*;
use crate::fields::Side;

/// `client`, `server`; `peer` for an end that is not traced, or whose side nobody knows.
pub fn role(diagram: &Diagram, end: &End) -> &'static str {
    let side = |end: &End| end.subject.as_ref().and_then(|it| it.side);
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

/// A client that got a SYN where it waited for a SYN-ACK: its peer calls as well.
fn both_call(diagram: &Diagram) -> bool {
    diagram.items.iter().any(|item| match &item.what {
        What::State(span) => {
            span.state == State::SynRecv
                && span.transition.as_ref().map(|it| it.oldstate) == Some(State::SynSent)
        }
        _ => false,
    })
}

/// What an arrow says, the longest first.
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

/// `seq 0 ack 1`, relative where the initial numbers are known.
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

/// A mark in a few words; `None` where an arrow says it.
pub fn mark(kind: &MarkKind) -> Option<String> {
    Some(match kind {
        MarkKind::Overflow(x) => {
            let fate = if x.aborted { "reset" } else { "dropped" };
            format!("{} {fate}: queue full", Kind::from(x.what).name())
        }
        MarkKind::Retransmit { what, .. } if *what == Kind::Data => "data sent again".to_owned(),
        MarkKind::Retransmit { .. } => return None,
        MarkKind::Reset(x) => format!("RST: {}", x.reason.as_ref()?),
        MarkKind::SocketFreed { .. } => "socket gone".to_owned(),
        MarkKind::BucketEnded(ended) => format!("{ended:?}").to_lowercase(),
        MarkKind::TraceEnds { .. } => "trace ends".to_owned(),
    })
}
