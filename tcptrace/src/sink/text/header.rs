//! The header of the log: the filters, the hooks, and what this trace cannot show.

use std::{io, iter};

use super::paint::{DIM, STRONG};
use super::row::Row;
use super::words::Count;
use super::{CONN, DURATION, IN_STATE, PROCESS, Style, TUPLE, WHAT};
use crate::fields::Session;
use crate::printable::printable;

/// Width of the header without `-v`.
const WIDTH: usize = 100;

pub fn write(row: &mut Row, x: &Session, style: Style) -> io::Result<()> {
    let name = format!("tcptrace {}", printable(&x.version));
    let rest = printable(&format!(" on Linux {}: {}", x.kernel, filters(x))).to_string();
    let room = match style.verbose {
        true => usize::MAX,
        false => WIDTH.saturating_sub(name.chars().count()),
    };
    row.put(STRONG, name).plain(cut(rest, room)).end()?;
    match style.verbose {
        true => details(row, x)?,
        false => row.put(DIM, hooks(x)).end()?,
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

/// Cuts a text at `width` characters. An ellipsis marks the cut.
fn cut(text: String, width: usize) -> String {
    match text.chars().count() > width {
        true => text
            .chars()
            .take(width.saturating_sub(1))
            .chain(['…'])
            .collect(),
        false => text,
    }
}

/// Formats `hooks: 7 of 9 attached; 4 things this trace cannot show (-v or tcptrace doctor)`.
fn hooks(x: &Session) -> String {
    let attached = x.hooks.values().flatten().count();
    let hooks = format!("hooks: {attached} of {} attached", x.hooks.len());
    match x.unseen.len() as u64 {
        0 => hooks,
        n => {
            let things = Count(n, "thing");
            format!("{hooks}; {things} this trace cannot show (-v or tcptrace doctor)")
        }
    }
}

/// Writes each hook with its attach method, and each thing that the trace cannot show, on a line of
/// its own: `  inet_csk_accept by syscall (fentry: EPERM, kprobe: ENOENT)`.
fn details(row: &mut Row, x: &Session) -> io::Result<()> {
    row.put(DIM, "hooks:").end()?;
    for (hook, method) in &x.hooks {
        let attached = match method {
            Some(method) => format!("{} by {method}", hook.name()),
            None => format!("{} not attached", hook.name()),
        };
        let failed = x.failed_methods.get(hook).map_or(&[][..], Vec::as_slice);
        let failed: Vec<String> = failed
            .iter()
            .map(|it| format!("{}: {}", it.method, it.error))
            .collect();
        let failed = match failed.is_empty() {
            true => String::new(),
            false => format!(" ({})", failed.join(", ")),
        };
        row.put(DIM, format_args!("  {attached}{failed}")).end()?;
    }
    for (index, what) in x.unseen.iter().enumerate() {
        if index == 0 {
            row.put(DIM, "this trace cannot show:").end()?;
        }
        row.put(DIM, format_args!("  {what}")).end()?;
    }
    Ok(())
}
