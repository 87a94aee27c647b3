//! The table of open connections, by the address of their socket.
//!
//! A busy server has many open connections, and most are idle until they end. The connections that
//! have been idle for longest are packed: serialized into a quarter of their size. An event unpacks
//! its connection first.
//!
//! A connection is taken out of the table for each of its events and put back. Moving its box moves
//! eight bytes. Its map entry stays, because nearly all connections come back to it. The box of an
//! ended connection is reused. While as many connections begin as end, no box is allocated.

use hashlink::LinkedHashMap;
use rustc_hash::FxBuildHasher;

use super::connection::Connection;
use crate::event::Sk;

/// A boxed connection.
pub type Kept = Box<Connection>;

/// Upper bound on connections that are not packed. It bounds the memory.
const UNPACKED: usize = 1 << 13;

/// Upper bound on open connections, packed or not. Beyond it, the longest idle one is given up.
const OPEN: usize = 1 << 20;

/// Upper bound on spare boxes. It suffices for the connections that end between two reads of the
/// ring buffers.
const SPARE: usize = 1 << 12;

/// Both maps are ordered by the last event, oldest first.
pub struct Table {
    unpacked: LinkedHashMap<Sk, Option<Kept>, FxBuildHasher>,
    packed: LinkedHashMap<Sk, Packed, FxBuildHasher>,
    /// The only empty entry in `unpacked`: that of the connection that is taken out for its event.
    empty: Option<Sk>,
    /// Boxes of connections that have ended, for reuse.
    spare: Vec<Kept>,
    /// The upper bounds on unpacked connections and on all connections.
    limits: (usize, usize),
}

impl Default for Table {
    fn default() -> Table {
        Table::of_size(UNPACKED, OPEN)
    }
}

impl Table {
    /// Makes a table with these upper bounds on unpacked and on all connections.
    pub fn of_size(unpacked: usize, open: usize) -> Table {
        Table {
            unpacked: LinkedHashMap::default(),
            packed: LinkedHashMap::default(),
            empty: None,
            spare: vec![],
            limits: (unpacked, open),
        }
    }

    pub fn len(&self) -> usize {
        self.unpacked.len() + self.packed.len() - usize::from(self.empty.is_some())
    }

    /// Puts a new connection into a box, for [`Table::insert`].
    pub fn boxed(&mut self, connection: Connection) -> Kept {
        match self.spare.pop() {
            Some(mut kept) => {
                *kept = connection;
                kept
            }
            None => Box::new(connection),
        }
    }

    /// Takes back the box of a connection that has ended, for reuse.
    pub fn give_back(&mut self, kept: Kept) {
        if self.spare.len() < SPARE {
            self.spare.push(kept);
        }
    }

    /// Inserts a connection that just had an event. If there are too many, removes and returns the
    /// one that was idle for longest.
    #[must_use = "the line of a connection that is given up must be written"]
    pub fn insert(&mut self, sk: Sk, connection: Kept) -> Option<Kept> {
        if self.empty == Some(sk)
            && let Some(place) = self.unpacked.to_back(&sk)
        {
            *place = Some(connection);
            self.empty = None;
        } else {
            self.clear();
            self.unpacked.insert(sk, Some(connection));
        }
        let (unpacked, open) = self.limits;
        while self.unpacked.len() > unpacked
            && let Some((idle, Some(connection))) = self.unpacked.pop_front()
        {
            self.packed.insert(idle, Packed::new(&connection));
            self.give_back(connection);
        }
        if self.len() <= open {
            return None;
        }
        let (_, given_up) = self.packed.pop_front()?;
        Some(self.boxed(given_up.unpack()))
    }

    #[cfg(test)]
    pub fn unpacked(&self) -> usize {
        self.unpacked.len()
    }

    pub fn contains(&self, sk: Sk) -> bool {
        self.conn_at(sk).is_some()
    }

    /// Returns the connection number of the connection whose socket has this kernel address.
    pub fn conn_at(&self, sk: Sk) -> Option<u64> {
        match self.unpacked.get(&sk) {
            Some(place) => Some(place.as_ref()?.socket.conn),
            None => Some(self.packed.get(&sk)?.unpack().socket.conn),
        }
    }

    /// Calls `show` for each connection.
    pub fn each(&self, mut show: impl FnMut(&Connection)) {
        self.packed.values().for_each(|it| show(&it.unpack()));
        self.unpacked.values().flatten().for_each(|it| show(it));
    }

    /// Returns the number of connections for which `is_meant` is true.
    pub fn count(&self, is_meant: impl Fn(&Connection) -> bool) -> usize {
        let mut count = 0;
        self.each(|it| count += usize::from(is_meant(it)));
        count
    }

    pub fn get_mut(&mut self, sk: Sk) -> Option<&mut Connection> {
        self.unpack_at(sk);
        self.unpacked.get_mut(&sk)?.as_deref_mut()
    }

    /// Takes out the connection whose socket has this kernel address, if `is_meant` is true for it.
    pub fn take(&mut self, sk: Sk, is_meant: impl Fn(&Connection) -> bool) -> Option<Kept> {
        self.clear();
        self.unpack_at(sk);
        let taken = self.unpacked.get_mut(&sk)?.take_if(|it| is_meant(it))?;
        self.empty = Some(sk);
        Some(taken)
    }

    /// Removes the empty entry of a connection that was not put back.
    fn clear(&mut self) {
        if let Some(sk) = self.empty.take() {
            self.unpacked.remove(&sk);
        }
    }

    /// Unpacks the connection whose socket has this kernel address.
    #[inline]
    fn unpack_at(&mut self, sk: Sk) {
        if !self.packed.is_empty()
            && let Some(packed) = self.packed.remove(&sk)
        {
            let connection = self.boxed(packed.unpack());
            self.unpacked.insert(sk, Some(connection));
        }
    }

    /// Returns the results of `of` for all connections.
    pub fn map<T>(&self, mut of: impl FnMut(Sk, &Connection) -> Option<T>) -> Vec<T> {
        let mut all = vec![];
        for (&sk, packed) in &self.packed {
            all.extend(of(sk, &packed.unpack()));
        }
        for (&sk, place) in &self.unpacked {
            all.extend(place.as_ref().and_then(|it| of(sk, it)));
        }
        all
    }

    /// Returns the connection numbers and the kernel addresses of all connections.
    pub fn conns(&self) -> impl Iterator<Item = (u64, Sk)> {
        let packed = self.packed.iter();
        let packed = packed.map(|(&sk, it)| (it.unpack().socket.conn, sk));
        let unpacked = self.unpacked.iter();
        packed.chain(unpacked.filter_map(|(&sk, place)| Some((place.as_ref()?.socket.conn, sk))))
    }
}

/// A connection serialized into few bytes: variable-length numbers, one byte for an absent value,
/// and two bytes for a series of zero bytes.
struct Packed(Box<[u8]>);

impl Packed {
    fn new(connection: &Connection) -> Packed {
        let bytes =
            postcard::to_allocvec(connection).expect("serializing a connection cannot fail");
        Packed(squeeze(&bytes).into_boxed_slice())
    }

    fn unpack(&self) -> Connection {
        let connection: Connection = postcard::from_bytes(&unsqueeze(&self.0))
            .expect("these bytes were made by Packed::new");
        connection.unpacked()
    }
}

/// Writes each series of zero bytes, of at most 255, as a zero and its length.
fn squeeze(bytes: &[u8]) -> Vec<u8> {
    let mut squeezed = Vec::with_capacity(bytes.len());
    for run in bytes.chunk_by(|&one, &next| one == 0 && next == 0) {
        match run {
            [byte] if *byte != 0 => squeezed.push(*byte),
            zeros => zeros
                .chunks(u8::MAX.into())
                .for_each(|zeros| squeezed.extend([0, zeros.len() as u8])),
        }
    }
    squeezed
}

/// The inverse of [`squeeze`].
fn unsqueeze(squeezed: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 * squeezed.len());
    let mut rest = squeezed.iter();
    while let Some(&byte) = rest.next() {
        match byte {
            0 => bytes.extend(std::iter::repeat_n(
                0,
                rest.next().copied().unwrap_or(0).into(),
            )),
            _ => bytes.push(byte),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squeeze_and_unsqueeze_are_inverse() {
        let zeros = |n| vec![0; n];
        let mixed: Vec<u8> = (0..=255).flat_map(|n| [n, 0, n, 0, 0]).collect();
        for bytes in [
            zeros(0),
            zeros(1),
            zeros(255),
            zeros(256),
            zeros(1000),
            mixed,
        ] {
            assert_eq!(unsqueeze(&squeeze(&bytes)), bytes);
        }
        assert_eq!(squeeze(&[7, 0, 0, 0, 8, 0]), [7, 0, 3, 8, 0, 1]);
    }
}
