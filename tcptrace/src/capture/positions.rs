//! The read and write positions of the ring buffer.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// The first two pages of a ring buffer's map, mapped read-only. Each page begins with a position
/// in bytes that only grows (`struct bpf_ringbuf`, kernel/bpf/ringbuf.c): the consumer position and
/// the producer position.
pub struct Positions {
    consumer: NonNull<u8>,
    page: usize,
}

// SAFETY: the memory is only read, and is mapped at the same address for all threads.
unsafe impl Send for Positions {}

impl Positions {
    /// Maps the positions of a ring buffer.
    ///
    /// # Errors
    /// If the kernel refuses the mapping.
    pub fn map(ring: BorrowedFd<'_>) -> io::Result<Positions> {
        let page = page_size() as usize;
        // SAFETY: creates a new mapping at an address that the kernel chooses.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                2 * page,
                libc::PROT_READ,
                libc::MAP_SHARED,
                ring.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(at.cast()) {
            Some(consumer) if at != libc::MAP_FAILED => Ok(Positions { consumer, page }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Returns the position up to which records have been read, in bytes.
    pub fn consumed(&self) -> u64 {
        self.position(0)
    }

    /// Returns the position up to which space has been reserved, in bytes.
    pub fn reserved(&self) -> u64 {
        self.position(self.page)
    }

    fn position(&self, at: usize) -> u64 {
        // SAFETY: an aligned u64 inside the mapping, which lives as long as `self`.
        let position = unsafe { AtomicU64::from_ptr(self.consumer.as_ptr().add(at).cast()) };
        position.load(Ordering::Acquire)
    }
}

/// Returns the size of a page in bytes.
pub fn page_size() -> u32 {
    // SAFETY: sysconf takes and returns numbers.
    (unsafe { libc::sysconf(libc::_SC_PAGESIZE) }) as u32
}

impl Drop for Positions {
    fn drop(&mut self) {
        // SAFETY: `self` owns the mapping, and no borrow of it remains.
        unsafe { libc::munmap(self.consumer.as_ptr().cast(), 2 * self.page) };
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn each_position_is_at_the_start_of_a_page() {
        let name = CString::new("positions").expect("no NUL");
        // SAFETY: the name outlives the call.
        let fd = unsafe { libc::memfd_create(name.as_ptr(), 0) };
        // SAFETY: the descriptor is new, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let page = u64::from(page_size());
        let file = std::fs::File::from(fd.try_clone().expect("a descriptor"));
        file.set_len(2 * page).expect("room");
        let positions = Positions::map(fd.as_fd()).expect("a mapping");
        assert_eq!((positions.consumed(), positions.reserved()), (0, 0));
        file.write_all_at(&40_u64.to_ne_bytes(), 0)
            .expect("written");
        file.write_all_at(&96_u64.to_ne_bytes(), page)
            .expect("written");
        assert_eq!((positions.consumed(), positions.reserved()), (40, 96));
    }

    #[test]
    fn a_descriptor_that_cannot_be_mapped_is_an_error() {
        let null = std::fs::File::open("/proc/self/status").expect("a file");
        assert!(Positions::map(null.as_fd()).is_err());
    }
}
