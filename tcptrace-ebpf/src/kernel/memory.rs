//! Ways to read kernel memory. Each reads a fault as zero, without a branch: the verifier
//! walks every path, and an error path per field would multiply them.

use core::marker::PhantomData;
use core::mem::MaybeUninit;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::globals::TASK_HELPERS;

/// How a program reads the structures that a hook hands it.
pub trait Memory {
    /// Reads a `T` at `base` + `offset`.
    ///
    /// # Safety
    /// `base` + `offset` must be where the kernel keeps a `T`: a pointer from the hook or read
    /// through this trait, and an offset from kernel BTF. All zero must be a `T`.
    unsafe fn read<T: Copy>(base: *const u8, offset: &Global<u32>) -> T;

    /// Reads a bit at `base` + `offset` bits.
    ///
    /// # Safety
    /// As [`read`](Self::read).
    unsafe fn bit(base: *const u8, offset: &Global<u32>) -> bool;

    /// Where several members are read from that lie together, in the `8 * N` bytes from the one at
    /// `first` on.
    ///
    /// # Safety
    /// As [`read`](Self::read), and all these bytes must be kernel memory.
    #[inline(always)]
    unsafe fn piece<const N: usize>(base: *const u8, first: &Global<u32>) -> impl Members {
        let _ = first;
        Each::<Self>(base, PhantomData)
    }
}

/// A structure, or a piece of one.
pub trait Members {
    /// Reads a member.
    ///
    /// # Safety
    /// As [`Memory::read`].
    unsafe fn get<T: Copy>(&self, offset: &Global<u32>) -> T;
}

/// Each member is read for itself.
struct Each<M: ?Sized>(*const u8, PhantomData<M>);

impl<M: Memory + ?Sized> Members for Each<M> {
    #[inline(always)]
    unsafe fn get<T: Copy>(&self, offset: &Global<u32>) -> T {
        // SAFETY: the caller's promise.
        unsafe { M::read(self.0, offset) }
    }
}

/// Plain loads through pointers that the verifier knows the type of (BTF tracepoints, fentry):
/// no helper call, half the cost of [`Probed`]. The kernel makes a fault read as 0.
pub struct Direct;

impl Memory for Direct {
    #[inline(always)]
    unsafe fn read<T: Copy>(base: *const u8, offset: &Global<u32>) -> T {
        // SAFETY: the caller's promise, which the verifier checks against kernel BTF.
        unsafe { *base.add(offset.load() as usize).cast::<T>() }
    }

    #[inline(always)]
    unsafe fn bit(base: *const u8, offset: &Global<u32>) -> bool {
        let offset = offset.load();
        // SAFETY: the caller's promise, which the verifier checks against kernel BTF.
        let byte = unsafe { *base.add(offset as usize / 8) };
        byte >> (offset % 8) & 1 != 0
    }
}

/// `bpf_probe_read_kernel`: any address, and the helper zeroes what it cannot read.
pub struct Probed;

impl Memory for Probed {
    #[inline(always)]
    unsafe fn read<T: Copy>(base: *const u8, offset: &Global<u32>) -> T {
        // SAFETY: the caller's promise.
        unsafe { Probed::read_at(base.wrapping_add(offset.load() as usize)) }
    }

    #[inline(always)]
    unsafe fn bit(base: *const u8, offset: &Global<u32>) -> bool {
        let offset = offset.load();
        // SAFETY: the caller's promise.
        let byte: u8 = unsafe { Probed::read_at(base.wrapping_add(offset as usize / 8)) };
        byte >> (offset % 8) & 1 != 0
    }

    #[inline(always)]
    unsafe fn piece<const N: usize>(base: *const u8, first: &Global<u32>) -> impl Members {
        // SAFETY: the caller's promise.
        unsafe { Piece::<N>::read(base, first) }
    }
}

/// For what is reached from [`Task::current`](crate::kernel::task::Task::current): a pointer with a type
/// where the kernel has a helper that gives one.
pub struct FromTask;

impl Memory for FromTask {
    #[inline(always)]
    unsafe fn read<T: Copy>(base: *const u8, offset: &Global<u32>) -> T {
        // SAFETY: the caller's promise.
        unsafe {
            if TASK_HELPERS.load() != 0 {
                Direct::read(base, offset)
            } else {
                Probed::read(base, offset)
            }
        }
    }

    #[inline(always)]
    unsafe fn bit(base: *const u8, offset: &Global<u32>) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            if TASK_HELPERS.load() != 0 {
                Direct::bit(base, offset)
            } else {
                Probed::bit(base, offset)
            }
        }
    }
}

impl Probed {
    /// Reads a `T` at an address.
    ///
    /// # Safety
    /// The kernel must keep a `T` there; the helper checks that the address can be read. All
    /// zero must be a `T`.
    #[inline(always)]
    pub unsafe fn read_at<T: Copy>(at: *const u8) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes all of `value`, whether it can read or not.
        unsafe {
            bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, at.cast());
            value.assume_init()
        }
    }
}

/// `8 * N` bytes in one read, which is as dear as one of a member.
struct Piece<const N: usize> {
    base: *const u8,
    /// Where the piece begins in the structure, a multiple of 8.
    start: u32,
    words: [u64; N],
}

impl<const N: usize> Piece<N> {
    /// # Safety
    /// As [`Memory::piece`].
    #[inline(always)]
    unsafe fn read(base: *const u8, first: &Global<u32>) -> Self {
        let start = first.load() & !7;
        Piece {
            base,
            start,
            // SAFETY: the caller's promise.
            words: unsafe { Probed::read_at(base.wrapping_add(start as usize)) },
        }
    }
}

impl<const N: usize> Members for Piece<N> {
    /// One that is not in the piece on this kernel is read for itself.
    #[inline(always)]
    unsafe fn get<T: Copy>(&self, offset: &Global<u32>) -> T {
        let at = offset.load().wrapping_sub(self.start) as usize;
        // SAFETY: inside of the words; or else the caller's promise.
        unsafe {
            if at <= size_of_val(&self.words) - size_of::<T>() && at % align_of::<T>() == 0 {
                self.words.as_ptr().cast::<u8>().add(at).cast::<T>().read()
            } else {
                Probed::read(self.base, offset)
            }
        }
    }
}
