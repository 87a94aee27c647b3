//! The header of the log: the filters, the hooks, and what this trace cannot show.

use std::{io, iter};

use super::paint::{DIM, STRONG};
use super::row::Row;
use super::words::Count;
use super::{CONN, DURATION, IN_STATE, PROCESS, Style, TUPLE, WHAT};
use crate::event::Hook;
use crate::fields::Session;

pub fn write(row: &mut Row, x: &Session, style: Style) -> io::Result<()> {
    row.put(STRONG, format_args!("tcptrace {}", x.version))
        .plain(format_args!(" on Linux {}: {}", x.kernel, filters(x)))
        .end()?;
    let hooks = match style.verbose {
        true => all_hooks(x),
        false => hooks_in_short(x),
    };
    row.put(DIM, format_args!("hooks: {hooks}")).end()?;
    if style.verbose && !x.unseen.is_empty() {
        row.put(DIM, format_args!("not seen: {}", x.unseen.join("; ")))
            .end()?;
    }
    row.put(STRONG, format_args!("TIME ({})", style.zone.name()));
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

/// Formats `9 of 11 attached, inet_csk_accept by syscall; 4 things that this trace cannot show (-v or
/// tcptrace doctor)`.
fn hooks_in_short(x: &Session) -> String {
    let attached = x.hooks.values().flatten().count();
    let accept = match x.hooks.get(&Hook::InetCskAccept) {
        Some(Some(method)) => format!(", {} by {method}", Hook::InetCskAccept.name()),
        _ => String::new(),
    };
    let unseen = match x.unseen.len() as u64 {
        0 => String::new(),
        n => {
            let things = Count(n, "thing");
            format!("; {things} that this trace cannot show (-v or tcptrace doctor)")
        }
    };
    format!("{attached} of {} attached{accept}{unseen}", x.hooks.len())
}

/// Formats the hooks: `inet_sock_set_state by tp_btf, inet_csk_accept by syscall (fentry: EPERM,
/// kprobe: ENOENT)`.
fn all_hooks(x: &Session) -> String {
    let hooks = x.hooks.iter().map(|(hook, method)| {
        let attached = match method {
            Some(method) => format!("{} by {method}", hook.name()),
            None => format!("{} not attached", hook.name()),
        };
        let refused = x.failed_methods.get(hook).map_or(&[][..], Vec::as_slice);
        let refused: Vec<String> = refused
            .iter()
            .map(|it| format!("{}: {}", it.method, it.error))
            .collect();
        match refused.is_empty() {
            true => attached,
            false => format!("{attached} ({})", refused.join(", ")),
        }
    });
    hooks.collect::<Vec<_>>().join(", ")
}
