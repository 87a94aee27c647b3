//! The summary: a table of the listeners, then the counters.

use std::io;

use super::Style;
use super::backlog::clipped;
use super::paint::{self, ALARM, PLAIN, STRONG};
use super::piece::{Piece, Said};
use super::row::Row;
use super::words::{Count, End, ScopedEnd, verdict_words, waited_long};
use crate::duration::Human;
use crate::event::Hook;
use crate::fields::{HookCount, ListenerSummary, NetnsCounters, QueueCounters, Summary};

pub fn write(row: &mut Row, summary: &Summary, style: Style) -> io::Result<()> {
    if !style.quiet {
        row.end()?;
        listeners(row, &summary.listeners)?;
        for counters in &summary.netns_counters {
            dropped(row, summary, counters)?;
        }
        connections(row, summary)?;
    }
    for (&hook, count) in &summary.hook_counts {
        if style.verbose || is_short(count) {
            balance(row, hook, count)?;
        }
    }
    if summary.dropped_lines > 0 {
        let lines = Count(summary.dropped_lines, "line");
        let why = "their connection stayed unknown for too long";
        row.put(ALARM, format_args!("{lines} dropped: {why}"))
            .end()?;
    }
    if summary.late > 0 {
        let events = Count(summary.late, "event");
        let why = "came too late to be put in order; the connections are incomplete";
        row.put(ALARM, format_args!("{events} {why}")).end()?;
    }
    if summary.undecodable > 0 {
        let records = Count(summary.undecodable, "record");
        row.put(ALARM, format_args!("{records} could not be decoded"))
            .end()?;
    }
    if style.quiet && summary.evicted_connections > 0 {
        let evicted = Count(summary.evicted_connections, "connection");
        row.put(ALARM, format_args!("{evicted} evicted (too many open)"))
            .end()?;
    }
    Ok(())
}

/// Returns true if the trace lacks events of a hook.
fn is_short(count: &HookCount) -> bool {
    count.lost > 0 || count.unaccounted > 0 || count.recursion_misses.is_some_and(|n| n > 0)
}

/// Returns true if the trace is known to have every event that its hooks saw.
fn is_complete(summary: &Summary) -> bool {
    let counts = &summary.hook_counts;
    let lacks = [
        summary.dropped_lines,
        summary.late,
        summary.undecodable,
        summary.evicted_connections,
    ];
    !counts.is_empty() && !counts.values().any(is_short) && lacks.iter().all(|&n| n == 0)
}

/// Headings of the numeric columns. Each is as wide as its column; a duration has 9 characters.
const HEADINGS: [&str; 7] = [
    "CONNECTIONS",
    "ACCEPTED",
    "NEVER ACCEPTED",
    "FAILED CALLS",
    " WAIT P50",
    " WAIT P99",
    " WAIT MAX",
];

fn listeners(row: &mut Row, listeners: &[ListenerSummary]) -> io::Result<()> {
    if listeners.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = listeners.iter().map(name).collect();
    let longest = names.iter().map(|name| name.chars().count()).max();
    let mut cells = |name: &str, style, cells: [String; 7]| {
        row.put(style, Said(name));
        let mut at = longest.unwrap_or(0).max("LISTENER".len());
        for (heading, cell) in HEADINGS.iter().zip(cells) {
            row.column(at + 2).right(style, heading.len(), cell);
            at += 2 + heading.len();
        }
        row.end()
    };

    cells("LISTENER", STRONG, HEADINGS.map(str::to_owned))?;
    for (name, x) in names.iter().zip(listeners) {
        let [p50, p99, max] = [
            x.accept_queue_p50_ns,
            x.accept_queue_p99_ns,
            x.accept_queue_max_ns,
        ]
        .map(|ns| ns.map_or("-".to_owned(), |ns| Human(ns).to_string()));
        let [connections, accepted, never, failed] = [
            x.connections,
            x.accepted,
            x.never_accepted,
            x.failed_accepts,
        ]
        .map(|n| n.to_string());
        cells(
            name,
            PLAIN,
            [connections, accepted, never, failed, p50, p99, max],
        )?;
    }
    for (name, x) in names.iter().zip(listeners) {
        turned_away(row, name, x)?;
        if let Some(waits) = waited_long(x.late.as_ref()) {
            row.plain(format_args!("{name}: "))
                .put(ALARM, waits)
                .end()?;
        }
    }
    row.end()
}

/// Writes `#1 127.0.0.1:80: 3 segments dropped at a full queue (limit 1), 1 half-open connection
/// unfinished`.
fn turned_away(row: &mut Row, name: &str, x: &ListenerSummary) -> io::Result<()> {
    let mut parts = vec![];
    if let Some(n @ 1..) = x.overflows {
        let limit = match (x.backlog.backlog_max, clipped(&x.backlog)) {
            (Some(max), Some(clipped)) => format!(" (limit {max}, {clipped})"),
            (Some(max), None) => format!(" (limit {max})"),
            (None, _) => String::new(),
        };
        let segments = Count(n, "segment");
        parts.push(format!("{segments} dropped at a full queue{limit}"));
    }
    if let Some(n @ 1..) = x.half_open_failed {
        parts.push(format!("{} unfinished", Count(n, "half-open connection")));
    }
    if parts.is_empty() {
        return Ok(());
    }
    row.plain(format_args!("{name}: "))
        .put(ALARM, parts.join(", "))
        .end()
}

/// Writes what the kernel's counters say about full queues, if no hook shows each drop.
fn dropped(row: &mut Row, summary: &Summary, counters: &NetnsCounters) -> io::Result<()> {
    if summary.hook_counts.contains_key(&Hook::ListenOverflow) {
        return Ok(());
    }
    let netns = format!("net:[{}]", counters.netns);
    let Some(at_least) = &counters.at_least else {
        let text = "SYNs and ACKs dropped at full queues are unknown: no hook shows them, and no \
                    process of the network namespace was found to read its counters";
        return row.put(ALARM, format_args!("{netns}: {text}")).end();
    };
    let no = QueueCounters::default();
    let at_most = counters.at_most.as_ref().unwrap_or(&no);
    let likely = summary
        .listeners
        .iter()
        .find(|it| it.conn.is_some() && it.conn == counters.likely_listener);
    let likely = likely.map_or(String::new(), |it| format!(", likely at {}", name(it)));
    let accept = rose(
        [at_least.listen_overflows, at_most.listen_overflows],
        "SYN or ACK",
    );
    let syn = rose([at_least.syn_queue_drops, at_most.syn_queue_drops], "SYN");
    let parts = [
        accept.map(|n| format!("{n} dropped at full accept queues (ListenOverflows){likely}")),
        syn.map(|n| format!("{n} dropped at full SYN queues (TCPReqQFullDrop)")),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        return Ok(());
    }
    let why =
        "the listen_overflow hook is not attached, so only the namespace's counters show them";
    row.plain(format_args!("{netns}: "))
        .put(ALARM, parts.join(", "))
        .plain(format_args!("; {why}"))
        .end()
}

/// Returns `at least 125 SYNs or ACKs`, or `None` if there was none as far as is known.
fn rose([at_least, at_most]: [u64; 2], what: &str) -> Option<String> {
    let n = at_least.max(at_most);
    let plural = match n {
        1 => what.to_owned(),
        _ => what.replace("SYN", "SYNs").replace("ACK", "ACKs"),
    };
    match (at_least, at_most) {
        (0, 0) => None,
        (0, most) => Some(format!("up to {most} {plural}")),
        (least, _) => Some(format!("at least {least} {plural}")),
    }
}

fn name(listener: &ListenerSummary) -> String {
    let end = End(Some(listener.laddr), listener.lport);
    let end = ScopedEnd(end, listener.scope_id).text();
    match listener.conn {
        Some(conn) => format!("#{conn} {end}"),
        None => end,
    }
}

/// Writes `12.88 s traced: 4 server-side connections (3 queued, 1 never accepted), 1 client-side, 1
/// incomplete; nothing lost`.
fn connections(row: &mut Row, summary: &Summary) -> io::Result<()> {
    let servers = Count(summary.servers, "server-side connection");
    row.put(STRONG, Human(summary.duration_ns))
        .plain(format_args!(" traced: {servers}"));
    let mut before = " (";
    for (&verdict, &n) in summary.verdicts.iter().filter(|(_, n)| **n > 0) {
        row.plain(before).put(
            paint::verdict(verdict),
            format_args!("{n} {}", verdict_words(verdict)),
        );
        before = ", ";
    }
    if before == ", " {
        row.plain(")");
    }
    row.plain(format_args!(", {} client-side", summary.clients));
    if summary.incomplete > 0 {
        row.plain(", ")
            .put(ALARM, format_args!("{} incomplete", summary.incomplete));
    }
    if summary.evicted_connections > 0 {
        row.plain(", ").put(
            ALARM,
            format_args!("{} evicted (too many open)", summary.evicted_connections),
        );
    }
    if is_complete(summary) {
        row.plain("; nothing lost");
    }
    row.end()
}

/// Writes `inet_csk_accept: 5 events seen, 0 filtered out, 4 traced, 1 lost`.
fn balance(row: &mut Row, hook: Hook, count: &HookCount) -> io::Result<()> {
    let alarm = |n| if n > 0 { ALARM } else { PLAIN };
    row.plain(format_args!(
        "{}: {} seen, {} filtered out, {} traced, ",
        hook.name(),
        Count(count.seen, "event"),
        count.filtered,
        count.emitted
    ))
    .put(alarm(count.lost), format_args!("{} lost", count.lost));
    if count.unaccounted > 0 {
        let unaccounted = count.unaccounted;
        let fault = "seen and not received: a fault of tcptrace, please report it";
        row.put(ALARM, format_args!(" ({unaccounted} {fault})"));
    }
    if let Some(misses @ 1..) = count.recursion_misses {
        row.plain(", ")
            .put(ALARM, format_args!("{misses} skipped by the kernel"));
    }
    row.end()
}
