//! Rows of a diagram: one for each moment, and some for each long gap.

use super::*;

pub enum Row<'a> {
    At(u64, Moment<'a>),
    /// Nothing happens for this time. The number of rows grows with the decimal logarithm of the
    /// gap, and one of them has a label.
    Gap {
        ns: u64,
        label: bool,
    },
}

pub enum Moment<'a> {
    State(&'a StateSpan),
    Called(&'a Call),
    Returned(&'a Call),
    /// A call that begins and returns at the same moment.
    Instant(&'a Call),
    Arrow(&'a Arrow),
    Mark(&'a Mark),
}

/// Gaps shorter than this have no row.
const SHORT_NS: u64 = 100_000;
const MOST_ROWS: u32 = 7;

pub fn of(diagram: &Diagram) -> Vec<Row<'_>> {
    let mut moments: Vec<(u64, Moment)> = vec![];
    for item in &diagram.items {
        let at = item.at_ns;
        match &item.what {
            ItemKind::State(span) => moments.push((at, Moment::State(span))),
            ItemKind::Arrow(arrow) => moments.push((at, Moment::Arrow(arrow))),
            // An arrow shows the reset.
            ItemKind::Mark(Mark {
                kind: MarkKind::Reset(_),
                ..
            }) if !diagram.segments => {}
            ItemKind::Mark(mark) if words::mark(&mark.kind).is_some() => {
                moments.push((at, Moment::Mark(mark)));
            }
            ItemKind::Call(call) if call.until_ns == Some(at) && call.begun => {
                moments.push((at, Moment::Instant(call)));
            }
            ItemKind::Call(call) if call.begun => moments.push((at, Moment::Called(call))),
            ItemKind::Call(_) | ItemKind::Wait(_) | ItemKind::Mark(_) => {}
        }
    }
    // A return comes last among the items of one moment, because a state lets a call return.
    for item in &diagram.items {
        if let ItemKind::Call(call) = &item.what
            && let Some(until) = call.until_ns
            && (until != item.at_ns || !call.begun)
        {
            moments.push((until, Moment::Returned(call)));
        }
    }
    moments.sort_by_key(|(at, _)| *at);
    let mut rows = vec![];
    let mut before = None;
    for (at, moment) in moments {
        let ns = before.map_or(0, |before| at - before);
        let n = gap_rows(ns);
        rows.extend((0..n).map(|i| Row::Gap {
            ns,
            label: i == n / 2,
        }));
        rows.push(Row::At(at, moment));
        before = Some(at);
    }
    rows
}

/// Returns the number of rows for a gap.
fn gap_rows(ns: u64) -> u32 {
    match ns / SHORT_NS {
        0 => 0,
        n => (n.ilog10() + 1).min(MOST_ROWS),
    }
}

/// The state of an end's kernel lane while a row is drawn.
pub enum Kernel {
    Socket,
    Bucket,
    Gone,
}

pub fn kernel_at(place: Place, rows: &[Row], index: usize) -> Kernel {
    let mut now = Kernel::Socket;
    for row in &rows[..index] {
        if let Row::At(_, Moment::State(span)) = row
            && span.place == place
            && span.state == State::Close
        {
            now = Kernel::Gone;
        }
        if let Row::At(_, Moment::Mark(mark)) = row
            && mark.place == place
        {
            match mark.kind {
                MarkKind::SocketFreed { .. } => now = Kernel::Bucket,
                MarkKind::BucketEnded(_) | MarkKind::TraceEnds { .. } => now = Kernel::Gone,
                _ => {}
            }
        }
    }
    now
}

/// Returns whether the end's process is in a call when a row is drawn.
pub fn calling(place: Place, rows: &[Row], index: usize) -> bool {
    let mut inside = 0;
    for row in &rows[..index] {
        match row {
            Row::At(_, Moment::Called(call)) if call.place == place => inside += 1,
            Row::At(_, Moment::Returned(call)) if call.place == place && call.begun => inside -= 1,
            _ => {}
        }
    }
    inside > 0
}

/// Returns the wait in the accept queue that a row lies in, and whether the row shows its label.
pub fn waiting<'a>(diagram: &'a Diagram, rows: &[Row], index: usize) -> Option<(bool, &'a Wait)> {
    let (since_ns, wait) = diagram.wait()?;
    let begins = rows.iter().position(|row| match row {
        Row::At(at, Moment::State(span)) => {
            *at == since_ns && span.place == wait.place && span.state == State::Established
        }
        _ => false,
    })?;
    let ends = rows
        .iter()
        .rposition(|row| matches!(row, Row::At(at, _) if *at <= wait.until_ns))?;
    let gap = |row: &Row| matches!(row, Row::Gap { .. });
    let named = rows[begins..].iter().position(gap).map(|at| begins + at);
    (begins < index && index <= ends).then_some((named == Some(index), wait))
}
