//! Reads the CPUs' lanes, see `abi::lane`, in memory that is shared with the programs that write them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::Map;
use tcptrace_ebpf::abi::lane::{self, CHUNK, CHUNK_WORDS, LaneEnds};

use super::load::no_map;

/// A CPU's part of half of what `--ring-size` says, within these bounds, is its lane: room for what it
/// writes until the next drain.
const LANE_BYTES: std::ops::RangeInclusive<u32> = (64 << 10)..=(1 << 20);

/// From one chunk to the next.
const CHUNK_BYTES: usize = 8 * CHUNK_WORDS;

/// The lanes of all CPUs.
pub struct Lanes {
    ends: Shared,
    chunks: Shared,
    cpus: usize,
    /// Chunks of a lane.
    of_a_lane: usize,
}

/// How many chunks the lane of each of so many CPUs has; 0 where that is so little that the ring buffer
/// shall have it alone.
pub fn chunks(ring_bytes: u32, cpus: u32) -> u32 {
    if ring_bytes / 2 < *LANE_BYTES.start() {
        return 0;
    }
    let bytes = (ring_bytes / 2 / cpus).clamp(*LANE_BYTES.start(), *LANE_BYTES.end());
    // A power of two, the next one down.
    1 << (bytes / CHUNK as u32).ilog2()
}

/// How many of the ring buffer's bytes go to the lanes: half, which leaves a power of two, if they have
/// that many together; else none, so that whoever asks for much gets as much.
pub fn share(ring_bytes: u32, cpus: u32, of_a_lane: u32) -> u32 {
    let all_lanes = u64::from(cpus) * u64::from(of_a_lane) * CHUNK as u64;
    match all_lanes >= u64::from(ring_bytes / 2) {
        true => ring_bytes / 2,
        false => 0,
    }
}

impl Lanes {
    /// Maps the maps of the object.
    ///
    /// # Errors
    /// When the kernel does not share them.
    pub fn of(ebpf: &Ebpf, cpus: u32, of_a_lane: u32) -> anyhow::Result<Lanes> {
        let fd = |name| match ebpf.map(name) {
            Some(Map::Array(map)) => Ok(map.fd().as_fd()),
            _ => Err(no_map()),
        };
        Lanes::map(fd("LANE_ENDS")?, fd("LANES")?, cpus, of_a_lane)
            .context("cannot map the lanes of records")
    }

    fn map(
        ends: BorrowedFd<'_>,
        chunks: BorrowedFd<'_>,
        cpus: u32,
        of_a_lane: u32,
    ) -> io::Result<Lanes> {
        let (cpus, of_a_cpu) = (cpus as usize, lane::chunks(of_a_lane) as usize);
        Ok(Lanes {
            ends: Shared::map(ends, cpus * size_of::<LaneEnds>())?,
            chunks: Shared::map(chunks, cpus * of_a_cpu * CHUNK_BYTES)?,
            cpus,
            of_a_lane: of_a_lane as usize,
        })
    }

    /// Hands over the records that are there, in order of time, while `take` wants more of them.
    pub fn drain(&mut self, mut take: impl FnMut(&[u8]) -> bool) {
        let mut lanes: Vec<Lane<'_>> = (0..self.cpus).map(|cpu| self.lane(cpu)).collect();
        let first = |(n, lane): (usize, &mut Lane<'_>)| Some(Reverse((time(lane.peek()?), n)));
        let mut firsts: BinaryHeap<_> = lanes.iter_mut().enumerate().filter_map(first).collect();
        while let Some(mut next) = firsts.peek_mut() {
            let n = next.0.1;
            let Some(record) = lanes[n].peek() else { break };
            let wants_more = take(record);
            lanes[n].step_over(record);
            match lanes[n].peek() {
                Some(record) => *next = Reverse((time(record), n)),
                None => drop(PeekMut::pop(next)),
            }
            if !wants_more {
                break;
            }
        }
    }

    fn lane(&self, cpu: usize) -> Lane<'_> {
        let ends = |member| self.ends.atomic(cpu * size_of::<LaneEnds>() + member);
        let read = ends(std::mem::offset_of!(LaneEnds, read));
        let of_a_cpu = lane::chunks(self.of_a_lane as u32) as usize;
        Lane {
            chunks: &self.chunks,
            first: cpu * of_a_cpu,
            mask: self.of_a_lane.wrapping_sub(1),
            at: read.load(Ordering::Relaxed),
            written: ends(std::mem::offset_of!(LaneEnds, written)).load(Ordering::Acquire),
            read,
        }
    }
}

/// `Header::mono_ns`, with which a record begins.
fn time(record: &[u8]) -> u64 {
    record.first_chunk().map_or(0, |it| u64::from_ne_bytes(*it))
}

/// What has been written into a lane and not been read.
struct Lane<'a> {
    chunks: &'a Shared,
    first: usize,
    mask: usize,
    at: u64,
    written: u64,
    read: &'a AtomicU64,
}

impl<'a> Lane<'a> {
    /// The record that comes next.
    fn peek(&mut self) -> Option<&'a [u8]> {
        while self.at < self.written {
            let chunk = self.first + ((self.at / CHUNK as u64) as usize & self.mask);
            let offset = (self.at % CHUNK as u64) as usize;
            let at = chunk * CHUNK_BYTES + offset;
            let len = self.chunks.bytes(at, size_of::<u64>())?.first_chunk()?;
            match u64::from_ne_bytes(*len) {
                0 => self.at += (CHUNK - offset) as u64,
                len => return self.chunks.bytes(at + size_of::<u64>(), len as usize),
            }
        }
        None
    }

    /// The record that has just been looked at is done with.
    fn step_over(&mut self, record: &[u8]) {
        self.at += (size_of::<u64>() + record.len()) as u64;
    }
}

/// The programs may write there again.
impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.read.store(self.at, Ordering::Release);
    }
}

/// The memory of a map, which the kernel keeps as long as it is mapped.
struct Shared {
    at: NonNull<u8>,
    bytes: usize,
}

// SAFETY: plain memory, at the same address in every thread.
unsafe impl Send for Shared {}

impl Shared {
    fn map(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<Shared> {
        // SAFETY: a new mapping, wherever there is room for it.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(at.cast()) {
            Some(start) if at != libc::MAP_FAILED => Ok(Shared { at: start, bytes }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// What the programs do not write now: the part of a lane between `read` and `written`.
    fn bytes(&self, at: usize, len: usize) -> Option<&[u8]> {
        let inside = at.checked_add(len)? <= self.bytes;
        // SAFETY: inside of the mapping, which lives as long as `self`.
        inside.then(|| unsafe { std::slice::from_raw_parts(self.at.as_ptr().add(at), len) })
    }

    fn atomic(&self, at: usize) -> &AtomicU64 {
        assert!(at + size_of::<u64>() <= self.bytes && at.is_multiple_of(8));
        // SAFETY: an aligned u64 inside of the mapping, which lives as long as `self`.
        unsafe { AtomicU64::from_ptr(self.at.as_ptr().add(at).cast()) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own, and nothing that borrows from it is left.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests;
