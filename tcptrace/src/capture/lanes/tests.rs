//! The programs' part is played by the tests.

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
    let chunks = memory((cpus * lane::chunks(CHUNKS)) as usize * CHUNK_BYTES);
    Lanes::map(ends.as_fd(), chunks.as_fd(), cpus, CHUNKS).unwrap()
}

/// Does what the eBPF program's `lanes::write` does; false when there is no room.
fn write(lanes: &mut Lanes, cpu: usize, record: &[u8]) -> bool {
    let ends = |lanes: &Lanes, member| {
        let end = lanes.ends.atomic(cpu * size_of::<LaneEnds>() + member);
        (end.load(Ordering::Relaxed), end.as_ptr())
    };
    let (written, end) = ends(lanes, std::mem::offset_of!(LaneEnds, written));
    let (read, _) = ends(lanes, std::mem::offset_of!(LaneEnds, read));
    let len = 8 + record.len() as u64;
    let rest = CHUNK as u64 - written % CHUNK as u64;
    let at = if rest < len { written + rest } else { written };
    if at + len - read > u64::from(CHUNKS) * CHUNK as u64 {
        return false;
    }
    let chunk = cpu * lane::chunks(CHUNKS) as usize + (at as usize / CHUNK) % CHUNKS as usize;
    let framed = [&(record.len() as u64).to_ne_bytes(), record, &[0; 8]].concat();
    // SAFETY: inside of the chunk, and nobody reads.
    unsafe {
        let to = lanes
            .chunks
            .at
            .add(chunk * CHUNK_BYTES + at as usize % CHUNK);
        std::ptr::copy_nonoverlapping(framed.as_ptr(), to.as_ptr(), framed.len());
        *end = at + len;
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
    for words in (2..=64).cycle().take(20_000) {
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
    // 208 bytes each, and no record lies in two chunks.
    assert_eq!(written.len(), CHUNKS as usize * (CHUNK / 208));
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
