//! The collector, which groups the lines of one connection, of both ends if both were traced.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use crate::depth::Depth;
use crate::fields::{Line, Side, Subject};

/// Upper bound on the lines kept for one connection. Later lines are counted and left out. Only
/// retransmitted data makes so many lines.
const MOST_LINES: usize = 4096;

/// Upper bound on the lines kept for all connections together. Beyond it, the connection that has
/// waited longest for the end of its TIME_WAIT is released. If no connection waits for that, the
/// oldest one is released.
const MOST_LINES_AT_ALL: usize = 131_072;

/// Upper bound on remembered `conn`s of released connections. A late line of such a connection
/// starts no new group.
const MOST_RELEASED: usize = 65_536;

/// Upper bound on kept lines without a `conn`. A group takes such a line when it has the line's
/// addresses.
const MOST_LOOSE: usize = 4096;

/// How long the lines of a connection are collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Until the `connection` lines of its ends.
    UntilEnded,
    /// Until its `time_wait` line as well.
    UntilGone,
}

/// Lines of one connection, in the order in which they were taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// `conn` of the ends: one, or two if both were traced.
    pub conns: Vec<u64>,
    /// Lines with these `conn`s, and segments, RSTs and overflows without a `conn` that have their
    /// addresses. Of the lines without a `conn`, [`super::Diagram::of`] takes those that certainly
    /// belong to the connection.
    pub lines: Vec<Line>,
    /// Number of lines left out because there were too many.
    pub left_out: u64,
    /// Number of ends of which more lines are expected.
    open: usize,
    /// Number of ends with a `connection` line.
    ended: usize,
}

/// Two addresses with ports, sorted, so that both ends give the same pair.
type Pair = [(IpAddr, u16); 2];

/// Groups lines by connection. It keeps at most 131 072 lines at a time, 4096 per connection, and
/// 4096 lines without a connection.
pub struct Collector {
    keep: Keep,
    groups: BTreeMap<u64, Group>,
    /// Number of lines in the groups.
    held: usize,
    /// Groups that wait only for a `time_wait` line, in the order in which the connections ended.
    ended: VecDeque<u64>,
    next: u64,
    of_conn: BTreeMap<u64, u64>,
    of_pair: BTreeMap<Pair, u64>,
    loose: VecDeque<Line>,
    /// `conn`s of the most recently released connections. Later lines with these are left out.
    released: BTreeSet<u64>,
}

impl Collector {
    /// Makes a collector without lines.
    pub fn new(keep: Keep) -> Collector {
        Collector {
            keep,
            groups: BTreeMap::new(),
            held: 0,
            ended: VecDeque::new(),
            next: 0,
            of_conn: BTreeMap::new(),
            of_pair: BTreeMap::new(),
            loose: VecDeque::new(),
            released: BTreeSet::new(),
        }
    }

    /// Takes the next line of a trace. Returns the group that is complete with it, if any.
    pub fn take(&mut self, line: &Line) -> Option<Group> {
        if let Line::Session(session) = line {
            // The other depths have no `time_wait` lines.
            if session.depth != Depth::Events {
                self.keep = Keep::UntilEnded;
            }
            return None;
        }
        let subject = line.subject()?;
        if subject.side == Some(Side::Listener) {
            // The `overflow` line of a dropped SYN appears at the SYN's connection, if that is
            // traced.
            return None;
        }
        let Some(conn) = subject.conn else {
            self.take_loose(line);
            return None;
        };
        let id = self.group_of(conn)?;
        self.held += self.groups.get_mut(&id)?.put(line);
        self.meet(id, subject);
        let id = match line {
            Line::Accept(x) => self.join(id, x.peer_conn),
            Line::Connection(x) => self.join(id, x.peer_conn),
            _ => id,
        };
        let over = match line {
            Line::Connection(x) => self.keep == Keep::UntilEnded || x.bucket.is_none(),
            Line::TimeWait(_) => self.keep == Keep::UntilGone,
            _ => false,
        };
        let group = self.groups.get_mut(&id)?;
        if over {
            group.open = group.open.saturating_sub(1);
        }
        if group.open == 0 {
            return self.release(id);
        }
        if matches!(line, Line::Connection(_)) {
            group.ended += 1;
            if group.ended == group.conns.len() {
                self.ended.push_back(id);
            }
        }
        if self.held > MOST_LINES_AT_ALL {
            return self.give_up();
        }
        None
    }

    /// Releases one group because too many lines are kept.
    fn give_up(&mut self) -> Option<Group> {
        while let Some(id) = self.ended.pop_front() {
            // Most groups in this queue have been released since they entered it.
            if self.groups.contains_key(&id) {
                return self.release(id);
            }
        }
        let oldest = *self.groups.first_key_value()?.0;
        self.release(oldest)
    }

    /// Returns the groups that are not complete, the oldest first.
    pub fn finish(mut self) -> impl Iterator<Item = Group> {
        std::mem::take(&mut self.groups).into_values()
    }

    /// Returns the group of a connection, possibly a new one; `None` if it was released.
    fn group_of(&mut self, conn: u64) -> Option<u64> {
        if let Some(&id) = self.of_conn.get(&conn) {
            return Some(id);
        }
        if self.released.contains(&conn) {
            return None;
        }
        let id = self.next;
        self.next += 1;
        self.of_conn.insert(conn, id);
        let group = Group {
            conns: vec![conn],
            open: 1,
            ..Group::default()
        };
        self.groups.insert(id, group);
        Some(id)
    }

    /// Stores the addresses of a group once they are known, and takes the loose lines that have
    /// them.
    fn meet(&mut self, id: u64, subject: &Subject) {
        let Some(pair) = pair(subject) else { return };
        if self.of_pair.insert(pair, id) == Some(id) {
            return;
        }
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let loose = std::mem::take(&mut self.loose);
        for line in loose {
            if line.subject().and_then(self::pair) == Some(pair) {
                self.held += group.put(&line);
            } else {
                self.loose.push_back(line);
            }
        }
    }

    fn take_loose(&mut self, line: &Line) {
        if !matches!(line, Line::Segment(_) | Line::Reset(_) | Line::Overflow(_)) {
            return;
        }
        let Some(pair) = line.subject().and_then(pair) else {
            return;
        };
        let group = self
            .of_pair
            .get(&pair)
            .and_then(|id| self.groups.get_mut(id));
        if let Some(group) = group {
            self.held += group.put(line);
            return;
        }
        if self.loose.len() == MOST_LOOSE {
            self.loose.pop_front();
        }
        self.loose.push_back(line.clone());
    }

    /// Joins the groups of both ends of a connection, if both are still kept.
    fn join(&mut self, id: u64, peer: Option<u64>) -> u64 {
        let other = peer.and_then(|peer| self.of_conn.get(&peer).copied());
        let Some(other) = other.filter(|&other| other != id) else {
            return id;
        };
        let (Some(one), Some(two)) = (self.groups.remove(&id), self.groups.remove(&other)) else {
            return id;
        };
        let id = id.min(other);
        for id_of in one.conns.iter().chain(&two.conns) {
            self.of_conn.insert(*id_of, id);
        }
        let group = one.and(two);
        for pair in group.lines.iter().filter_map(|line| pair(line.subject()?)) {
            self.of_pair.insert(pair, id);
        }
        self.groups.insert(id, group);
        id
    }

    fn release(&mut self, id: u64) -> Option<Group> {
        let group = self.groups.remove(&id)?;
        self.held -= group.lines.len();
        // Removes released groups from the queue before it gets longer than the kept groups
        // justify.
        if self.ended.len() > 2 * self.groups.len() + 16 {
            self.ended.retain(|id| self.groups.contains_key(id));
        }
        for conn in &group.conns {
            self.of_conn.remove(conn);
            self.released.insert(*conn);
        }
        while self.released.len() > MOST_RELEASED {
            self.released.pop_first();
        }
        // Another connection may use the addresses and ports by now.
        for pair in group.lines.iter().filter_map(|line| pair(line.subject()?)) {
            if self.of_pair.get(&pair) == Some(&id) {
                self.of_pair.remove(&pair);
            }
        }
        Some(group)
    }
}

impl Group {
    /// Appends a line and returns the number of lines added, 0 or 1.
    fn put(&mut self, line: &Line) -> usize {
        // Lines about the end of a connection or bucket are never left out.
        let end = matches!(line, Line::Connection(_) | Line::TimeWait(_));
        if self.lines.len() < MOST_LINES || end {
            self.lines.push(line.clone());
            1
        } else {
            self.left_out += 1;
            0
        }
    }

    /// Merges the lines of both ends by time.
    fn and(mut self, other: Group) -> Group {
        self.lines.extend(other.lines);
        self.lines.sort_by_key(Line::mono_ns);
        self.conns.extend(other.conns);
        self.conns.sort_unstable();
        self.left_out += other.left_out;
        self.open += other.open;
        self.ended += other.ended;
        self
    }
}

fn pair(subject: &Subject) -> Option<Pair> {
    let own = (subject.laddr, subject.lport?);
    let peer = (subject.raddr?, subject.rport?);
    Some([own.min(peer), own.max(peer)])
}
