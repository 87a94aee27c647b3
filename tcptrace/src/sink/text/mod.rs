//! The terminal log: one line for each event, in columns, and a sentence for each verdict.
//!
//! ```text
//! TIME (UTC)       CONN  FROM → TO                STATE                   IN STATE  PROCESS
//! 14:03:07.123456  #3    127.0.0.1:39709 → :7878  SYN_RECV → ESTABLISHED   23.1 µs  server[4711]?
//! ```

mod backlog;
mod both_ends;
mod bucket;
mod diagrams;
pub(crate) mod ending;
pub(crate) mod explain;
mod failing;
mod header;
mod histogram;
pub(crate) mod paint;
pub(crate) mod piece;
mod preexisting;
mod row;
mod segment;
mod summary;
mod table;
pub(crate) mod time;
pub(crate) mod words;

use std::io::{self, Write};

use rustc_hash::FxHashMap;

use self::diagrams::Diagrams;
use self::ending::Ending;
use self::failing::{Failing, Repeats, Report};
use self::paint::{ALARM, DIM, PLAIN, STRONG};
use self::piece::{Known, Piece, Said};
use self::row::Row;
use self::table::Table;
use self::time::TimeOfDay;
pub use self::time::Zone;
use self::words::{Count, Ports, overflow};
pub(crate) use self::words::{Tuple, Who, verdict_words};
use super::Sink;
use super::columns::Columns;
use crate::clock::Clock;
use crate::duration::Human;
use crate::event::Context;
use crate::fields::{
    Accept, Connection, Late, Line, Lost, Overflow, Subject, Transition, Verdict, Wanted, Why,
};
use crate::printable::printable;

/// Start positions of the columns. A connection on 127.0.0.1 fits into 110 characters, with both
/// addresses.
const CONN: usize = 17;
const TUPLE: usize = 23;
const WHAT: usize = 58;
const IN_STATE: usize = 84;
const PROCESS: usize = 94;

/// Width of a pair of ports, `:39709 → :7878`, with the gap behind it.
const PORTS: usize = 18;

/// Width of prose below a line. It ends where the columns end.
const EXPLAIN_WIDTH: usize = 100 - TUPLE;

/// Width of a duration such as `999.9 ms`.
const DURATION: usize = PROCESS - IN_STATE - 2;

/// The style of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Use colour codes, for a terminal.
    pub color: bool,
    /// Show all details and every failed accept().
    pub verbose: bool,
    /// Write no header, and no summary except the counts of lost events.
    pub quiet: bool,
    /// Explain each change of state below its line.
    pub explain: bool,
    pub zone: Zone,
}

/// Writes the terminal log.
pub struct Text {
    clock: Clock,
    style: Style,
    time_of_day: TimeOfDay,
    row: Row,
    /// Verdicts already shown at accept(), by `conn`, for connections that are open. They are not
    /// repeated at the end.
    shown_verdicts: FxHashMap<u64, Verdict>,
    failing: Failing,
    diagrams: Option<Diagrams>,
    /// The table that is written instead of the log.
    table: Option<Table>,
    /// Show ports without addresses.
    ports_only: bool,
}

impl Text {
    pub fn new(out: Box<dyn Write + Send>, clock: Clock, style: Style) -> Text {
        Text {
            clock,
            style,
            time_of_day: TimeOfDay::new(style.zone),
            row: Row::new(out, style.color),
            shown_verdicts: FxHashMap::default(),
            failing: Failing::default(),
            diagrams: None,
            table: None,
            ports_only: false,
        }
    }

    /// Writes a table with these columns instead of the log.
    pub fn with_columns(mut self, columns: Columns) -> Text {
        self.table = Some(Table::new(columns, self.clock));
        self
    }

    /// Shows ports without addresses, in a narrower column.
    pub fn with_ports_only(mut self) -> Text {
        self.ports_only = true;
        self.row.move_columns(TUPLE, WHAT - TUPLE - PORTS);
        self
    }

    fn transition(&mut self, x: &Transition) -> io::Result<()> {
        self.begin(x.mono_ns, &x.subject, x.subject.conn);
        self.row
            .plain((x.oldstate, " → "))
            .put(paint::state(x.newstate), x.newstate);
        self.row.column(IN_STATE);
        match x.in_state_ns {
            Some(ns) => self.row.right(PLAIN, DURATION, Human(ns)),
            None => self.row.right(DIM, DURATION, "-"),
        };
        self.row.column(PROCESS).plain(Who(&x.subject));
        self.error(x.error.as_deref());
        self.bucket(x);
        self.backlog(&x.backlog);
        if self.style.verbose {
            let context = match x.context {
                Some(Context::Process) => "process",
                Some(Context::Softirq) => "softirq",
                None => "context unknown",
            };
            self.detail((context, " on cpu ", x.cpu));
            if x.synthetic {
                self.detail("synthetic");
            }
            self.identity(&x.subject);
        }
        self.end()?;
        let sentence = match self.style.explain {
            true => explain::transition(x),
            false => None,
        };
        match sentence {
            Some(sentence) => self.explain(&sentence),
            None => Ok(()),
        }
    }

    /// Writes prose below a line, wrapped to the width of the log.
    fn explain(&mut self, sentence: &str) -> io::Result<()> {
        self.below(DIM, sentence)
    }

    fn below(&mut self, style: anstyle::Style, sentence: &str) -> io::Result<()> {
        for line in textwrap::wrap(&printable(sentence), EXPLAIN_WIDTH) {
            self.row.column(TUPLE).put(style, Said(&line));
            self.end()?;
        }
        Ok(())
    }

    fn accept(&mut self, x: &Accept) -> io::Result<()> {
        match &x.accept_error {
            None => {
                for repeats in self.failing.accepted(x) {
                    self.accepts_failed(x.mono_ns, &repeats)?;
                }
                self.accepted(x)?;
                if let (Some(verdict), Some(reason)) = (x.verdict, &x.reason) {
                    self.verdict(x.mono_ns, &x.subject, verdict, reason);
                    self.end()?;
                    self.late(x.late.as_deref())?;
                    self.shown_verdicts
                        .extend(x.subject.conn.map(|conn| (conn, verdict)));
                }
                self.both_ends(x)
            }
            Some(errno) if is_routine(errno) && !self.style.verbose => Ok(()),
            Some(errno) if self.style.verbose => self.accept_failed(x, errno),
            Some(errno) => match self.failing.again(x, errno) {
                Report::Single => self.accept_failed(x, errno),
                Report::Later => Ok(()),
                Report::Together(repeats) => self.accepts_failed(x.mono_ns, &repeats),
            },
        }
    }

    fn accepted(&mut self, x: &Accept) -> io::Result<()> {
        self.begin(x.mono_ns, &x.subject, x.subject.conn);
        self.row
            .plain(("accept() returned to ", Who(&x.subject)))
            .plain(x.blocked_ns.map(|ns| (" after ", Human(ns))));
        if x.backlog_len > 0 {
            self.row.plain((", ", x.backlog_len, " still queued"));
        }
        if self.style.verbose {
            self.detail(("queue limit ", x.backlog_max));
            self.identity(&x.subject);
        }
        self.end()
    }

    /// Writes a failed accept() under the listener's number, because there is no connection.
    fn accept_failed(&mut self, x: &Accept, errno: &str) -> io::Result<()> {
        self.begin(x.mono_ns, &x.subject, x.listener);
        self.row
            .plain(("accept() failed for ", Who(&x.subject), ": "))
            .put(ALARM, Said(errno))
            .plain(x.blocked_ns.map(|ns| (" after ", Human(ns))));
        if self.style.verbose {
            self.identity(&x.subject);
        }
        self.end()
    }

    /// Writes `accept() failed for server[4711]: EMFILE, 137 times more`.
    fn accepts_failed(&mut self, mono_ns: u64, x: &Repeats) -> io::Result<()> {
        self.begin(mono_ns, &x.subject, x.listener);
        let times = Count(x.count, "time");
        self.row
            .plain(("accept() failed for ", Who(&x.subject), ": "))
            .put(ALARM, Said(&x.error))
            .plain(format_args!(", {times} more"));
        self.end()
    }

    fn overflow(&mut self, x: &Overflow) -> io::Result<()> {
        self.begin(x.mono_ns, &x.subject, x.subject.conn);
        self.row.put(ALARM, overflow(x));
        if self.style.verbose {
            self.identity(&x.subject);
        }
        self.end()?;
        match self.style.explain {
            true => self.explain(explain::overflow(x)),
            false => Ok(()),
        }
    }

    /// Writes how a connection ended, and its verdict unless accept() has already shown it.
    fn connection(&mut self, x: &Connection) -> io::Result<()> {
        let shown = x
            .subject
            .conn
            .and_then(|conn| self.shown_verdicts.remove(&conn));
        let news = x.verdict.filter(|&verdict| shown != Some(verdict));
        if let (Some(verdict), Some(reason)) = (news, &x.reason) {
            self.verdict(x.mono_ns, &x.subject, verdict, reason);
            if x.accepted_mono_ns.is_some() {
                self.end()?;
                self.late(x.late.as_deref())?;
            } else if let Some(deferred) = ending::deferred(x) {
                self.row.plain((", ", deferred));
            }
        }
        // A connection that was never accepted has no line except that of its verdict.
        if news.is_none() || x.accepted_mono_ns.is_some() {
            self.begin(x.mono_ns, &x.subject, x.subject.conn);
            self.row.plain(Ending(x));
        }
        self.error(x.error.as_deref());
        if !x.complete {
            let why = "incomplete: the trace began later, or lost events";
            self.row.plain("  ").put(ALARM, why);
        }
        if self.style.verbose {
            if let Some(evidence) = &x.evidence {
                self.detail(("evidence: ", Said(evidence)));
            }
            if let Some(peer) = x.peer_conn {
                self.detail(("its other end is #", peer));
            }
            if let Some(ahead) = x.backlog_ahead {
                self.detail((ahead, " ahead in the queue"));
            }
        }
        self.end()?;
        if news.is_some() && x.accepted_mono_ns.is_none() {
            self.late(x.late.as_deref())?;
        }
        match &x.explanation {
            Some(explanation) => self.explain(explanation),
            None => Ok(()),
        }
    }

    /// Writes why accept() was late, below the verdict.
    fn late(&mut self, late: Option<&Late>) -> io::Result<()> {
        match late {
            Some(late) => self.below(PLAIN, &late.late_because),
            None => Ok(()),
        }
    }

    /// Writes `queued: the kernel finished the handshake 5.003 s before accept() returned to …`.
    fn verdict(&mut self, mono_ns: u64, subject: &Subject, verdict: Verdict, reason: &str) {
        self.begin(mono_ns, subject, subject.conn);
        self.row
            .put(paint::verdict(verdict), verdict_words(verdict))
            .plain((": ", Said(reason)));
    }

    fn lost(&mut self, x: &Lost) -> io::Result<()> {
        self.time(x.mono_ns);
        let (count, hook) = (x.count, x.hook.name());
        self.row.column(CONN);
        match x.why {
            Why::RingBufferFull => self.row.put(
                ALARM,
                format_args!(
                    "LOST {} of {hook}: the ring buffer was full, what is open now is incomplete",
                    Count(count, "event")
                ),
            ),
            Why::TooManyCalls => self.row.put(
                ALARM,
                format_args!(
                    "LOST {} of accept(): too many were in flight, what is open now is incomplete",
                    Count(count, "call")
                ),
            ),
            Why::Unaccounted => self.row.put(
                ALARM,
                format_args!(
                    "LOST {} of {hook}: seen and not received, a fault of tcptrace; what is open now is \
                     incomplete",
                    Count(count, "event")
                ),
            ),
        };
        self.end()
    }

    /// Writes the columns that every event has.
    fn begin(&mut self, mono_ns: u64, subject: &Subject, conn: Option<u64>) {
        self.time(mono_ns);
        self.row.column(CONN);
        match conn {
            Some(conn) => self.row.put(STRONG, ("#", conn)),
            None => self.row.plain("-"),
        };
        self.row.column(TUPLE);
        match self.ports_only {
            true => self.row.plain(Ports(subject)),
            false => self.row.plain(Tuple(subject)),
        };
        self.row.column(WHAT);
    }

    fn time(&mut self, mono_ns: u64) {
        let time = self.time_of_day.of(self.clock.wall_ns(mono_ns));
        self.row.put(DIM, Known(time));
    }

    fn error(&mut self, errno: Option<&str>) {
        if let Some(errno) = errno {
            self.row.plain("  ").put(ALARM, Said(errno));
        }
    }

    fn detail(&mut self, what: impl Piece) {
        self.row.plain("  ").put(DIM, ("(", what, ")"));
    }

    /// Writes the ids of the socket as `ss -e` and /proc/PID/ns/net show them.
    fn identity(&mut self, subject: &Subject) {
        if let (Some(tid), true) = (subject.tid, subject.tid != subject.pid) {
            self.detail(("tid ", tid));
        }
        if let Some(cookie) = subject.cookie {
            self.detail(format_args!("sk:{cookie:x}"));
        }
        self.detail(("net:[", subject.netns, "]"));
        if let Some(container) = &subject.container {
            // The same short form that container runtimes show.
            let short: String = container.chars().take(12).collect();
            match &subject.container_name {
                Some(name) => self.detail(format_args!("container {short} {}", &**name)),
                None => self.detail(format_args!("container {short}")),
            }
        }
        if let (Some(pod), Some(namespace)) = (&subject.k8s_pod_name, &subject.k8s_namespace_name) {
            self.detail(format_args!("pod {}.{}", &**pod, &**namespace));
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.row.end()
    }
}

impl Text {
    fn write_line(&mut self, line: &Line) -> io::Result<()> {
        match line {
            Line::Session(_) if self.style.quiet => Ok(()),
            Line::Session(x) => header::write(&mut self.row, x, self.style),
            Line::Preexisting(x) => self.preexisting(x),
            Line::Transition(x) => self.transition(x),
            Line::Accept(x) => self.accept(x),
            Line::Overflow(x) => self.overflow(x),
            Line::Segment(x) => self.segment(x),
            Line::Connection(x) => self.connection(x),
            Line::Retransmit(x) => self.retransmit(x),
            Line::Reset(x) => self.reset(x),
            // The CLOSE line has already said that the bucket continues.
            Line::TimeWait(x) if x.bucket_end.is_none() && !self.style.verbose => Ok(()),
            Line::TimeWait(x) => self.time_wait(x),
            Line::Histogram(x) => self.histogram(x),
            // The sentence about the wait names the functions.
            Line::Stack(_) => Ok(()),
            Line::Lost(x) => self.lost(x),
            Line::Summary(x) => {
                for repeats in self.failing.rest() {
                    self.accepts_failed(x.mono_ns, &repeats)?;
                }
                summary::write(&mut self.row, x, self.style)
            }
        }
    }
}

impl Sink for Text {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        if let Some(mut table) = self.table.take() {
            let done = self.row_of(&mut table, line);
            self.table = Some(table);
            return done;
        }
        self.write_line(line)?;
        match &mut self.diagrams {
            Some(diagrams) => diagrams.line(line, &mut self.row),
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.row.flush()
    }

    fn wants(&self) -> Wanted {
        match &self.table {
            Some(table) => table.wants(),
            None => Wanted::ALL,
        }
    }
}

/// Returns true for errors that are normal in a server that polls, or after a signal.
fn is_routine(errno: &str) -> bool {
    matches!(errno, "EAGAIN" | "EWOULDBLOCK" | "ERESTARTSYS")
}

#[cfg(test)]
mod tests;
