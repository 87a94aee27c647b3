//! Which lines belong together: those of one connection, of both its ends where both were traced.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use crate::depth::Depth;
use crate::fields::{Line, Side, Subject};

/// Lines that one connection may have; what comes then is counted and left out. Only data that is
/// sent again makes so many.
const MOST_LINES: usize = 4096;

/// Lines of all connections at a time. Beyond, the connection that has waited longest for the end
/// of its TIME_WAIT is given away without it; where none does, the oldest as it is.
const MOST_LINES_AT_ALL: usize = 131_072;

/// Connections that were given away and are remembered, so that nothing late makes new ones.
const MOST_RELEASED: usize = 65_536;

/// Lines of segments and RSTs without a connection that may turn out to be of one.
const MOST_LOOSE: usize = 4096;

/// How long a connection is kept together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Until the `connection` lines of its ends.
    UntilEnded,
    /// Until its `time_wait` line as well.
    UntilGone,
}

/// Lines of one connection, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// `conn` of its ends: one, or two when both were traced.
    pub conns: Vec<u64>,
    /// Theirs; and segments, RSTs and overflows without a `conn` that have their addresses, of
    /// which [`super::Diagram::of`] takes those that are sure.
    pub lines: Vec<Line>,
    /// Lines that were left out, because there were too many.
    pub left_out: u64,
    /// Ends of which more is to come.
    open: usize,
    /// Ends whose sockets have ended.
    ended: usize,
}

/// Two addresses with ports, in an order that does not depend on whose they are.
type Pair = [(IpAddr, u16); 2];

/// Groups lines by connection. Bounded: at most 131 072 lines are kept at a time, 4096 of each
/// connection, and 4096 without a connection.
pub struct Collector {
    keep: Keep,
    groups: BTreeMap<u64, Group>,
    /// Lines in them.
    held: usize,
    /// Groups that wait for a `time_wait` line only, in order.
    ended: VecDeque<u64>,
    next: u64,
    of_conn: BTreeMap<u64, u64>,
    of_pair: BTreeMap<Pair, u64>,
    loose: VecDeque<Line>,
    /// Those that were given away, the latest of them: what still comes of them is left out.
    released: BTreeSet<u64>,
}

impl Collector {
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

    /// Takes the next line of a trace, and gives the connection that has ended with it.
    pub fn take(&mut self, line: &Line) -> Option<Group> {
        if let Line::Session(session) = line {
            // The other depths tell nothing of buckets.
            if session.depth != Depth::Events {
                self.keep = Keep::UntilEnded;
            }
            return None;
        }
        let subject = line.subject()?;
        if subject.side == Some(Side::Listener) {
            // A SYN that was dropped is told at its connection, if that is traced.
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

    /// Makes room.
    fn give_up(&mut self) -> Option<Group> {
        while let Some(id) = self.ended.pop_front() {
            // Many are gone since, in good order.
            if self.groups.contains_key(&id) {
                return self.release(id);
            }
        }
        let oldest = *self.groups.first_key_value()?.0;
        self.release(oldest)
    }

    /// What has not ended, the oldest first.
    pub fn finish(mut self) -> impl Iterator<Item = Group> {
        std::mem::take(&mut self.groups).into_values()
    }

    /// The group of a connection, which may be a new one; `None` when it has been given away.
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

    /// Notes the addresses, once they are known, and takes the loose lines that have them.
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

    /// Puts a connection together with its other end, where that is still here.
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
        // Its place in the queue goes as well, before the queue is longer than what is kept.
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
        // The ports may have another connection by now.
        for pair in group.lines.iter().filter_map(|line| pair(line.subject()?)) {
            if self.of_pair.get(&pair) == Some(&id) {
                self.of_pair.remove(&pair);
            }
        }
        Some(group)
    }
}

impl Group {
    /// Gives how many lines it has more.
    fn put(&mut self, line: &Line) -> usize {
        // How it ended is never left out.
        let end = matches!(line, Line::Connection(_) | Line::TimeWait(_));
        if self.lines.len() < MOST_LINES || end {
            self.lines.push(line.clone());
            1
        } else {
            self.left_out += 1;
            0
        }
    }

    /// Both ends' lines, in order of time.
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
