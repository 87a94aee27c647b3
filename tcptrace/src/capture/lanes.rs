//! Reads the per-CPU buffers, see `abi::lane`, in memory that is shared with the programs that write them.

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
use tcptrace_ebpf::abi::lane::{self, CHUNK, LEN, LaneEnds, Ring};

use super::load::no_map;

/// A CPU's part of half of what `--ring-size` says, within these bounds, is its lane: room for what it
/// writes until the next drain.
const LANE_BYTES: std::ops::RangeInclusive<u32> = (64 << 10)..=(1 << 20);

/// How often a CPU is looked at that has a program writing: some microseconds, in which most are over.
const SPINS: usize = 200;

/// The lanes of all CPUs.
pub struct Lanes {
    ends: Shared,
    chunks: Shared,
    cpus: usize,
    ring: Ring,
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
            chunks: Shared::map(chunks, cpus * of_a_cpu * CHUNK)?,
            cpus,
            ring: Ring::of(of_a_lane),
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

    /// Whether no program is about to write a record of a time that has passed: each CPU has been without
    /// one since this was called. Waits a moment for those that write just now.
    pub fn are_quiet(&self) -> bool {
        (0..self.cpus).all(|cpu| (0..SPINS).any(|_| self.is_quiet(cpu)))
    }

    fn is_quiet(&self, cpu: usize) -> bool {
        let members = [
            std::mem::offset_of!(LaneEnds, level),
            std::mem::offset_of!(LaneEnds, busy),
        ];
        let quiet = members.into_iter().all(|member| {
            let at = cpu * size_of::<LaneEnds>() + member;
            self.ends.atomic(at).load(Ordering::Acquire) == 0
        });
        if !quiet {
            std::hint::spin_loop();
        }
        quiet
    }

    fn lane(&self, cpu: usize) -> Lane<'_> {
        let ends = |member| self.ends.atomic(cpu * size_of::<LaneEnds>() + member);
        let read = ends(std::mem::offset_of!(LaneEnds, read));
        let of_a_cpu = lane::chunks(self.ring.chunks as u32) as usize;
        Lane {
            chunks: &self.chunks,
            first: cpu * of_a_cpu,
            ring: self.ring,
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
    ring: Ring,
    at: u64,
    written: u64,
    read: &'a AtomicU64,
}

impl<'a> Lane<'a> {
    /// The record that comes next.
    fn peek(&self) -> Option<&'a [u8]> {
        if self.at >= self.written {
            return None;
        }
        let chunk = self.first + self.ring.chunk_of(self.at) as usize;
        let at = chunk * CHUNK + self.ring.offset_of(self.at) as usize;
        let len = self.chunks.bytes(at, LEN)?.first_chunk()?;
        self.chunks
            .bytes(at + LEN, u64::from_ne_bytes(*len) as usize)
    }

    /// The record that has just been looked at is done with.
    fn step_over(&mut self, record: &[u8]) {
        self.at = self.ring.next(self.at, (LEN + record.len()) as u64);
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
