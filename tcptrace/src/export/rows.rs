//! The rows: sets of labels with their metrics, bounded in number, and the listening sockets that
//! belong to them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::metrics::{Metrics, OTHER, Row, RowMetrics};
use crate::correlate::match_rank;
use crate::event::Comm;
use crate::fields::Subject;
use crate::printable::printable;
use tcptrace_core::container::Text;

/// How long the row of a closed listener stays, in nanoseconds: long enough for any scrape
/// interval.
pub const CLOSED_FOR_NS: u64 = 300_000_000_000;

/// How long the row of clients stays without a line, in nanoseconds.
pub const IDLE_FOR_NS: u64 = 3_600_000_000_000;

/// Number of a row. Row 0 has the listeners that do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowId(u32);

const OTHERS: RowId = RowId(0);

/// A row and the state that its metrics need.
struct Entry {
    row: Arc<Row>,
    metrics: RowMetrics,
    /// `conn` of the listening sockets with these labels. Several sockets may share an address
    /// (SO_REUSEPORT, or several network namespaces).
    sockets: SmallVec<[u64; 1]>,
    /// Time of the last line.
    last_ns: u64,
}

/// A listening socket.
struct Socket {
    row: RowId,
    netns: u32,
    address: IpAddr,
    port: u16,
    /// Connections in the accept queue; `None` while unknown.
    length: Option<u32>,
    limit: Option<u32>,
    /// A process has accepted a connection, so the label `service` is final.
    has_acceptor: bool,
    /// The labels of a socket for which there was no room.
    waits_for: Option<Box<Row>>,
}

/// All rows.
pub struct Rows {
    metrics: Arc<Metrics>,
    max: usize,
    next: u32,
    entries: FxHashMap<RowId, Entry>,
    ids: FxHashMap<Arc<Row>, RowId>,
    sockets: FxHashMap<u64, Socket>,
    /// The sockets by network namespace and port.
    at_port: FxHashMap<(u32, u16), SmallVec<[u64; 1]>>,
    /// Called for each new row, to create the counters that begin at 0.
    begin: fn(&mut RowMetrics, Begin),
    pub visible: Begin,
}

/// The hooks that decide which counters of a new row begin at 0. A counter without a hook does not
/// exist.
#[derive(Clone, Copy, Debug, Default)]
pub struct Begin {
    pub overflows: bool,
    pub requests: bool,
}

impl Rows {
    pub fn new(metrics: Arc<Metrics>, max: usize, begin: fn(&mut RowMetrics, Begin)) -> Rows {
        Rows {
            metrics,
            max,
            next: 1,
            entries: FxHashMap::default(),
            ids: FxHashMap::default(),
            sockets: FxHashMap::default(),
            at_port: FxHashMap::default(),
            begin,
            visible: Begin::default(),
        }
    }

    /// Returns the metrics of a row for a line at this time.
    pub fn at(&mut self, row: RowId, mono_ns: u64) -> Option<&mut RowMetrics> {
        if row == OTHERS {
            self.metrics.over_limit.inc();
        }
        let entry = self.entries.get_mut(&row)?;
        entry.last_ns = entry.last_ns.max(mono_ns);
        Some(&mut entry.metrics)
    }

    /// Returns the row of a client, or of a socket of which the side is unknown.
    pub fn of_client(&mut self, subject: &Subject) -> RowId {
        self.find(row(String::new(), subject))
    }

    /// Returns the row of a server's connection. The listener is the one that the line names, else
    /// the open one that matches best by address, else the connection's own address counts.
    pub fn of_server(&mut self, subject: &Subject, listener: Option<u64>) -> RowId {
        if let Some(conn) = self.listener(subject, listener) {
            return self.of_socket(conn);
        }
        match subject.lport {
            Some(port) => self.find(row(address(subject.laddr, port), subject)),
            None => self.of_client(subject),
        }
    }

    /// Returns the `conn` of a connection's listener.
    pub fn listener(&self, subject: &Subject, listener: Option<u64>) -> Option<u64> {
        if let Some(conn) = listener.filter(|conn| self.sockets.contains_key(conn)) {
            return Some(conn);
        }
        let at_port = self.at_port.get(&(subject.netns, subject.lport?))?;
        let ranked = at_port.iter().filter_map(|conn| {
            let socket = self.sockets.get(conn)?;
            Some((match_rank(socket.address, subject.laddr)?, *conn))
        });
        ranked.min().map(|(_, conn)| conn)
    }

    fn of_socket(&mut self, conn: u64) -> RowId {
        self.sockets.get(&conn).map_or(OTHERS, |it| it.row)
    }

    /// Returns the row with these labels. Creates it if there is room.
    fn find(&mut self, row: Row) -> RowId {
        if let Some(id) = self.ids.get(&row) {
            return *id;
        }
        if self.ids.len() >= self.max {
            if !self.entries.contains_key(&OTHERS) {
                let other = Row {
                    listener: OTHER.to_owned(),
                    ..Row::default()
                };
                self.create(OTHERS, Arc::new(other));
            }
            return OTHERS;
        }
        let id = RowId(self.next);
        self.next = self.next.checked_add(1).unwrap_or(1);
        let row = Arc::new(row);
        self.create(id, row.clone());
        self.ids.insert(row, id);
        self.metrics.label_sets.set(self.ids.len() as i64);
        id
    }

    fn create(&mut self, id: RowId, row: Arc<Row>) {
        let mut metrics = RowMetrics::new(&self.metrics, &row);
        if !row.listener.is_empty() {
            (self.begin)(&mut metrics, self.visible);
        }
        let entry = Entry {
            row,
            metrics,
            sockets: SmallVec::new(),
            last_ns: 0,
        };
        self.entries.insert(id, entry);
    }

    /// Adds a listening socket. `length` is the length of its accept queue if it is known.
    pub fn open(&mut self, mono_ns: u64, subject: &Subject, length: Option<u32>, max: Option<u32>) {
        let (Some(conn), Some(port)) = (subject.conn, subject.lport) else {
            return;
        };
        if self.sockets.contains_key(&conn) {
            return;
        }
        let row = row(address(subject.laddr, port), subject);
        let id = self.find(row.clone());
        let socket = Socket {
            row: id,
            netns: subject.netns,
            address: subject.laddr,
            port,
            length,
            limit: max,
            has_acceptor: false,
            waits_for: (id == OTHERS).then(|| Box::new(row)),
        };
        self.sockets.insert(conn, socket);
        let at_port = self.at_port.entry((subject.netns, port)).or_default();
        at_port.push(conn);
        self.join(conn, id);
        self.at_time(id, mono_ns);
    }

    fn at_time(&mut self, row: RowId, mono_ns: u64) {
        if let Some(entry) = self.entries.get_mut(&row) {
            entry.last_ns = entry.last_ns.max(mono_ns);
        }
    }

    fn join(&mut self, conn: u64, row: RowId) {
        if let Some(entry) = self.entries.get_mut(&row) {
            entry.sockets.push(conn);
        }
        self.gauges(row);
    }

    fn leave(&mut self, conn: u64, row: RowId) {
        if let Some(entry) = self.entries.get_mut(&row) {
            entry.sockets.retain(|it| *it != conn);
        }
        self.gauges(row);
    }

    /// Removes a listening socket.
    pub fn close(&mut self, mono_ns: u64, conn: u64) {
        let Some(socket) = self.sockets.remove(&conn) else {
            return;
        };
        let port = (socket.netns, socket.port);
        if let Some(at_port) = self.at_port.get_mut(&port) {
            at_port.retain(|it| *it != conn);
            if at_port.is_empty() {
                self.at_port.remove(&port);
            }
        }
        self.leave(conn, socket.row);
        self.at_time(socket.row, mono_ns);
    }

    /// Sets the gauges of a row to the sums over its sockets. A sum with an unknown part is unknown.
    /// Row `other` has no gauges, because its sockets have nothing in common.
    fn gauges(&mut self, row: RowId) {
        let Some(entry) = self.entries.get_mut(&row).filter(|_| row != OTHERS) else {
            return;
        };
        let sum = |of: fn(&Socket) -> Option<u32>| {
            let sockets = entry.sockets.iter().map(|conn| self.sockets.get(conn));
            let values = sockets.map(|socket| Some(u64::from(of(socket?)?)));
            match entry.sockets.is_empty() {
                true => None,
                false => values.sum(),
            }
        };
        let (length, limit) = (sum(|it| it.length), sum(|it| it.limit));
        entry.metrics.length(length);
        entry.metrics.limit(limit);
    }

    /// A process has accepted a connection. Its name is the label `service` from now on. Before, the
    /// label was the name of the process that listens, which may be a service manager.
    pub fn accepted_by(&mut self, conn: u64, service: Comm) {
        let Some(socket) = self.sockets.get_mut(&conn) else {
            return;
        };
        if std::mem::replace(&mut socket.has_acceptor, true) {
            return;
        }
        let before = socket.row;
        let Some(entry) = self.entries.get(&before) else {
            return;
        };
        let service = service.to_string();
        if before == OTHERS || entry.row.service == service {
            return;
        }
        let renamed = Row {
            service,
            ..(*entry.row).clone()
        };
        let row = self.find(renamed);
        self.move_to(conn, row);
    }

    fn move_to(&mut self, conn: u64, row: RowId) {
        if let Some(socket) = self.sockets.get_mut(&conn) {
            let before = std::mem::replace(&mut socket.row, row);
            self.leave(conn, before);
            self.join(conn, row);
        }
    }

    /// The kernel has reported the length and the limit of an accept queue.
    pub fn report(&mut self, conn: u64, length: u32, limit: u32) {
        self.change(conn, |socket| {
            socket.length = Some(length);
            socket.limit = Some(limit);
        });
    }

    /// A connection has entered an accept queue.
    pub fn enter(&mut self, conn: u64) {
        self.change(conn, |socket| {
            socket.length = socket.length.map(|it| it.saturating_add(1));
        });
    }

    /// The length of an accept queue is not known any more.
    pub fn doubt(&mut self, conn: u64) {
        self.change(conn, |socket| socket.length = None);
    }

    /// Events were lost, so no length is known until the kernel reports it again.
    pub fn doubt_all(&mut self) {
        self.sockets.values_mut().for_each(|it| it.length = None);
        let rows: Vec<RowId> = self.entries.keys().copied().collect();
        rows.into_iter().for_each(|row| self.gauges(row));
    }

    /// Gives sockets of the row `other` a row, as far as there is room.
    fn admit_others(&mut self) {
        let room = self.max.saturating_sub(self.ids.len());
        let others = self.entries.get(&OTHERS);
        let others = others.map_or(&[][..], |it| &it.sockets);
        let admitted: Vec<u64> = others.iter().take(room).copied().collect();
        for conn in admitted {
            let socket = self.sockets.get_mut(&conn);
            if let Some(row) = socket.and_then(|it| it.waits_for.take()) {
                let row = self.find(*row);
                self.move_to(conn, row);
            }
        }
    }

    fn change(&mut self, conn: u64, change: impl FnOnce(&mut Socket)) {
        if let Some(socket) = self.sockets.get_mut(&conn) {
            let before = (socket.length, socket.limit);
            change(socket);
            if before != (socket.length, socket.limit) {
                let row = socket.row;
                self.gauges(row);
            }
        }
    }

    /// Removes the rows that are gone at this time, and gives their room to the listeners of `other`.
    pub fn expire(&mut self, now_ns: u64) {
        let is_gone = |entry: &Entry| {
            let stays_ns = match entry.row.listener.is_empty() {
                true => IDLE_FOR_NS,
                false => CLOSED_FOR_NS,
            };
            entry.sockets.is_empty() && entry.last_ns.saturating_add(stays_ns) < now_ns
        };
        let gone: Vec<RowId> = (self.entries.iter())
            .filter(|(id, entry)| **id != OTHERS && is_gone(entry))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            if let Some(entry) = self.entries.remove(&id) {
                self.ids.remove(&entry.row);
                entry.metrics.remove();
            }
        }
        self.admit_others();
        self.metrics.label_sets.set(self.ids.len() as i64);
    }
}

/// Returns the labels of a socket's row.
fn row(listener: String, subject: &Subject) -> Row {
    let text = |text: &Option<Text>| printable(text.as_deref().unwrap_or_default()).to_string();
    Row {
        listener,
        container: text(&subject.container),
        k8s_pod_name: text(&subject.k8s_pod_name),
        k8s_namespace_name: text(&subject.k8s_namespace_name),
        service: subject.process.map(|it| it.to_string()).unwrap_or_default(),
    }
}

fn address(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}
