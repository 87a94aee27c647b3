//! The header of the log: the filters, the hooks, and what this trace cannot show.

use std::{io, iter};

use super::paint::{DIM, STRONG};
use super::row::Row;
use super::{CONN, DURATION, IN_STATE, PROCESS, TUPLE, WHAT, Zone};
use crate::fields::Session;

pub fn write(row: &mut Row, x: &Session, zone: Zone) -> io::Result<()> {
    row.put(STRONG, format_args!("tcptrace {}", x.version))
        .plain(format_args!(" on Linux {}: {}", x.kernel, filters(x)))
        .end()?;
    row.put(DIM, format_args!("hooks: {}", hooks(x))).end()?;
    if !x.unseen.is_empty() {
        row.put(DIM, format_args!("not seen: {}", x.unseen.join("; ")))
            .end()?;
    }
    row.put(STRONG, format_args!("TIME ({})", zone.name()));
    for (at, heading) in [(CONN, "CONN"), (TUPLE, "FROM → TO"), (WHAT, "STATE")] {
        row.column(at).put(STRONG, heading);
    }
    row.column(IN_STATE).right(STRONG, DURATION, "IN STATE");
    row.column(PROCESS).put(STRONG, "PROCESS").end()
}

/// Formats the filters: `TCP, port 7878`.
fn filters(x: &Session) -> String {
    if x.filters.is_empty() {
        return "all TCP".to_owned();
    }
    let conditions = x.filters.iter();
    let conditions =
        conditions.map(|(condition, value)| format!(", {} {value}", condition.replace('_', " ")));
    iter::once("TCP".to_owned()).chain(conditions).collect()
}

/// Formats the hooks: `inet_sock_set_state by tp_btf, inet_csk_accept by syscall (fentry: EPERM,
/// kprobe: ENOENT)`.
fn hooks(x: &Session) -> String {
    let hooks = x.hooks.iter().map(|(hook, method)| {
        let attached = match method {
            Some(method) => format!("{} by {method}", hook.name()),
            None => format!("{} not attached", hook.name()),
        };
        let refused = x.refused.get(hook).map_or(&[][..], Vec::as_slice);
        let refused: Vec<String> = refused
            .iter()
            .map(|it| format!("{}: {}", it.method, it.refusal))
            .collect();
        match refused.is_empty() {
            true => attached,
            false => format!("{attached} ({})", refused.join(", ")),
        }
    });
    hooks.collect::<Vec<_>>().join(", ")
}
