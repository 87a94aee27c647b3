//! The programs' part is played by the tests.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::fs::File;
use std::os::fd::FromRawFd as _;

use super::*;

/// Chunks of a lane.
const CHUNKS: u32 = 4;

/// Memory without a name, as if it were a map.
fn memory(bytes: usize) -> File {
    // SAFETY: a plain system call, with a name that ends with NUL.
    let fd = unsafe { libc::memfd_create(c"lanes".as_ptr(), 0) };
    assert!(fd >= 0);
    // SAFETY: a new descriptor, which nobody else has.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(bytes as u64).unwrap();
    file
}

fn lanes(cpus: u32) -> Lanes {
    let ends = memory(cpus as usize * size_of::<LaneEnds>());
    let chunks = memory((cpus * lane::chunks(CHUNKS)) as usize * CHUNK);
    Lanes::map(ends.as_fd(), chunks.as_fd(), cpus, CHUNKS).unwrap()
}

/// Writes as the eBPF side's `lanes::write` does; false when there is no room.
fn write(lanes: &mut Lanes, cpu: usize, record: &[u8]) -> bool {
    let ends = |member| {
        lanes
            .ends
            .atomic(cpu * size_of::<LaneEnds>() + member)
            .as_ptr()
    };
    let written = ends(std::mem::offset_of!(LaneEnds, written));
    let read = ends(std::mem::offset_of!(LaneEnds, read));
    let frame = [&(record.len() as u64).to_ne_bytes(), record].concat();
    assert!(frame.len() <= lane::LONGEST);
    let (ring, len) = (lanes.ring, frame.len() as u64);
    // SAFETY: inside of the chunk, and nobody reads.
    unsafe {
        let at = *written;
        if !ring.has_room(at, *read, len) {
            return false;
        }
        let chunk = cpu * lane::chunks(CHUNKS) as usize + ring.chunk_of(at) as usize;
        let place = chunk * CHUNK + ring.offset_of(at) as usize;
        let to = lanes.chunks.at.add(place);
        std::ptr::copy_nonoverlapping(frame.as_ptr(), to.as_ptr(), frame.len());
        *written = ring.next(at, len);
    }
    true
}

/// A record of a time, `words` words long.
fn record(mono_ns: u64, words: usize) -> Vec<u8> {
    let mut record = mono_ns.to_ne_bytes().to_vec();
    record.resize(8 * words, 0xa5);
    record
}

fn drained(lanes: &mut Lanes) -> Vec<Vec<u8>> {
    let mut records = vec![];
    lanes.drain(|record| {
        records.push(record.to_vec());
        true
    });
    records
}

#[test]
fn lanes_are_a_power_of_two_and_within_bounds() {
    let bytes = |ring, cpus| chunks(ring, cpus) as usize * CHUNK;
    assert_eq!(bytes(4 << 20, 2), 1 << 20);
    assert_eq!(bytes(4 << 20, 12), 128 << 10);
    assert_eq!(bytes(4 << 20, 512), 64 << 10);
    assert_eq!(bytes(64 << 20, 1), 1 << 20);
}

#[test]
fn a_small_ring_buffer_has_no_lanes() {
    assert_eq!(chunks(4096, 1), 0);
}

#[test]
fn lanes_and_ring_buffer_have_what_was_asked_for_at_least() {
    for (ring, cpus, left) in [
        (4 << 20, 2, 2 << 20),
        (4 << 20, 3, 4 << 20),
        (4 << 20, 64, 2 << 20),
        (64 << 20, 2, 64 << 20),
        (4096, 2, 4096),
    ] {
        let chunks = chunks(ring, cpus);
        let rest = ring - share(ring, cpus, chunks);
        assert_eq!(rest, left, "{ring} on {cpus}");
        assert!(
            rest + cpus * chunks * CHUNK as u32 >= ring,
            "{ring} on {cpus}"
        );
    }
}

#[test]
fn what_is_written_is_read_once() {
    let mut lanes = lanes(1);
    assert!(drained(&mut lanes).is_empty());
    let (one, other) = (record(1, 3), record(2, 20));
    assert!(write(&mut lanes, 0, &one) && write(&mut lanes, 0, &other));
    assert_eq!(drained(&mut lanes), [one, other]);
    assert!(drained(&mut lanes).is_empty());
}

/// Records of every size, for many times round: at the end of a chunk, of the lane, and behind it.
#[test]
fn a_lane_goes_round() {
    let mut lanes = lanes(1);
    let mut time = 0;
    for words in (2..=31).cycle().take(20_000) {
        time += 1;
        let next = record(time, words);
        assert!(write(&mut lanes, 0, &next));
        if time % 7 == 0 {
            let records = drained(&mut lanes);
            assert_eq!(records.len(), 7);
            assert_eq!(records.last(), Some(&next));
        }
    }
}

#[test]
fn a_full_lane_has_room_again_when_it_is_read() {
    let mut lanes = lanes(1);
    let mut written = vec![];
    while write(&mut lanes, 0, &record(written.len() as u64, 25)) {
        written.push(record(written.len() as u64, 25));
    }
    // 208 bytes each, and no frame begins where the longest one has no room.
    let of_a_chunk = (CHUNK - lane::LONGEST) / 208 + 1;
    assert_eq!(written.len(), CHUNKS as usize * of_a_chunk);
    assert_eq!(drained(&mut lanes), written);
    assert!(write(&mut lanes, 0, &record(1, 25)));
}

#[test]
fn lanes_are_merged_by_time() {
    let mut lanes = lanes(3);
    for (cpu, times) in [(0, [1, 4, 9]), (2, [2, 3, 10])] {
        for time in times {
            assert!(write(&mut lanes, cpu, &record(time, 2)));
        }
    }
    let times: Vec<u64> = drained(&mut lanes).iter().map(|it| time(it)).collect();
    assert_eq!(times, [1, 2, 3, 4, 9, 10]);
}

#[test]
fn who_has_enough_finds_the_rest_later() {
    let mut lanes = lanes(2);
    for time in 1..=6 {
        assert!(write(&mut lanes, time as usize % 2, &record(time, 2)));
    }
    let mut some = vec![];
    lanes.drain(|record| {
        some.push(time(record));
        some.len() < 2
    });
    let rest: Vec<u64> = drained(&mut lanes).iter().map(|it| time(it)).collect();
    assert_eq!((some, rest), (vec![1, 2], vec![3, 4, 5, 6]));
}

/// The model of a ring: its words, each with the number of the frame that wrote it and its place in that
/// frame, and the frames that have not been read, by number and length in words.
#[derive(Clone)]
struct Model {
    ring: Ring,
    words: Vec<(u64, u64)>,
    written: u64,
    read: u64,
    unread: VecDeque<(u64, u64)>,
    frames: u64,
}

impl Model {
    /// Rings are as large as a state of theirs can be told apart by: words are bytes here.
    fn of(ring: Ring) -> Model {
        Model {
            ring,
            words: vec![(0, 0); (ring.chunks * ring.chunk) as usize],
            written: 0,
            read: 0,
            unread: VecDeque::new(),
            frames: 0,
        }
    }

    /// The writer's part; false when there is no room.
    fn write(&mut self, len: u64) -> bool {
        let ring = self.ring;
        if !ring.has_room(self.written, self.read, len) {
            return false;
        }
        self.frames += 1;
        let offset = ring.offset_of(self.written);
        assert!(offset + len <= ring.chunk, "a frame lies in one chunk");
        let at = u64::from(ring.chunk_of(self.written)) * ring.chunk + offset;
        for word in 0..len {
            self.words[(at + word) as usize] = (self.frames, word);
        }
        self.unread.push_back((self.frames, len));
        self.written = ring.next(self.written, len);
        true
    }

    /// The reader's part: steps over the next frame, by its length in the ring.
    fn read(&mut self) {
        let (_, len) = self.unread.pop_front().expect("a frame");
        self.read = self.ring.next(self.read, len);
    }

    /// The reader finds each unread frame, whole, and then the end.
    fn check(&self) {
        let mut at = self.read;
        for &(frame, len) in &self.unread {
            assert!(at < self.written, "{frame} is before the end");
            let ring = self.ring;
            let place = u64::from(ring.chunk_of(at)) * ring.chunk + ring.offset_of(at);
            for word in 0..len {
                let found = self.words[(place + word) as usize];
                assert_eq!(found, (frame, word), "at {at} of {self:?}");
            }
            at = ring.next(at, len);
        }
        assert_eq!(at, self.written, "{self:?}");
    }

    /// The whole state on which the next step of the model depends.
    fn state(&self) -> (u64, Vec<u64>) {
        let whole = self.ring.chunks * self.ring.chunk;
        let lens = self.unread.iter().map(|&(_, len)| len);
        (self.read % whole, lens.collect())
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Model { written, read, .. } = self;
        write!(f, "{read}..{written} {:?} {:?}", self.ring, self.unread)
    }
}

/// Every state that a small ring can be in, by whatever records and reads: none overwrites what is unread.
#[test]
fn no_frame_overwrites_an_unread_one_at_any_fill_level_size_and_position() {
    for (chunks, chunk, longest) in [(1, 8, 4), (2, 7, 3), (2, 8, 5), (4, 4, 3), (4, 5, 4)] {
        let ring = Ring {
            chunk,
            longest,
            chunks,
        };
        let mut met = HashSet::new();
        let mut next = vec![Model::of(ring)];
        let (mut full, mut filled) = (false, false);
        while let Some(model) = next.pop() {
            if !met.insert(model.state()) {
                continue;
            }
            model.check();
            for len in 1..=longest {
                let mut more = model.clone();
                match more.write(len) {
                    true => next.push(more),
                    false => full = true,
                }
            }
            filled |= model.written - model.read == chunks * chunk;
            if !model.unread.is_empty() {
                let mut less = model;
                less.read();
                next.push(less);
            }
        }
        assert!(full && filled, "{ring:?} was not filled to its last byte");
    }
}

/// An empty ring takes a frame of any size at any position.
#[test]
fn an_empty_ring_has_room_wherever_it_is_read() {
    let ring = Ring::of(1);
    for at in (0..2 * CHUNK as u64).step_by(8) {
        let at = ring.next(at, 0);
        for frame in (8..=lane::LONGEST as u64).step_by(8) {
            assert!(ring.has_room(at, at, frame));
            assert!(ring.offset_of(at) + frame <= CHUNK as u64);
        }
    }
    assert!(!Ring::of(0).has_room(0, 0, 8), "a ring without chunks");
}

/// Reads at any fill level: each record comes once, as it was written, and those without room are known.
#[test]
fn what_had_room_is_read_whatever_was_read_before() {
    let mut lanes = lanes(1);
    let mut expected = VecDeque::new();
    let (mut time, mut refused) = (0, 0);
    let mut random = 1_u64;
    for _ in 0..50_000 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
        time += 1;
        let next = record(time, 1 + (random >> 33) as usize % 31);
        match write(&mut lanes, 0, &next) {
            true => expected.push_back(next),
            false => refused += 1,
        }
        if random >> 60 == 0 {
            let mut some = (random >> 40) % 64;
            lanes.drain(|record| {
                assert_eq!(Some(record), expected.pop_front().as_deref());
                some = some.saturating_sub(1);
                some > 0
            });
        }
    }
    assert_eq!(drained(&mut lanes), Vec::from(expected));
    assert!(refused > 100, "the buffer was full at times: {refused}");
}
