//! Reads of kernel memory.
//!
//! A read that faults returns zero, without a branch. The verifier walks every path, and an error
//! path for each field would multiply the paths.

use core::marker::PhantomData;
use core::mem::MaybeUninit;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::globals::TASK_HELPERS;

/// A way to read the structures that a hook gets from the kernel.
pub trait Memory {
    /// Reads a `T` at `base` + `offset`.
    ///
    /// `base` + `offset` must be the address of a `T` in kernel memory. `base` comes from the hook
    /// or from a read of this trait, the offset from kernel BTF. All-zero bytes must be a valid
    /// `T`.
    unsafe fn read<T: Copy>(base: *const u8, offset: &Global<u32>) -> T;

    /// Reads a bit at `base` + `offset` bits.
    ///
    /// # Safety
    /// As [`read`](Self::read).
    unsafe fn bit(base: *const u8, offset: &Global<u32>) -> bool;

    /// Reads several adjacent members: those in the `8 * N` bytes from the member at `first` on.
    ///
    /// # Safety
    /// As [`read`](Self::read), and all these bytes must be kernel memory.
    #[inline(always)]
    unsafe fn block<const N: usize>(base: *const u8, first: &Global<u32>) -> impl Members {
        let _ = first;
        Separate::<Self>(base, PhantomData)
    }
}

/// A structure, or a block of one.
pub trait Members {
    /// Reads a member.
    ///
    /// # Safety
    /// As [`Memory::read`].
    unsafe fn get<T: Copy>(&self, offset: &Global<u32>) -> T;
}

/// Reads each member separately.
struct Separate<M: ?Sized>(*const u8, PhantomData<M>);

impl<M: Memory + ?Sized> Members for Separate<M> {
    #[inline(always)]
    unsafe fn get<T: Copy>(&self, offset: &Global<u32>) -> T {
        // SAFETY: the caller's promise.
        unsafe { M::read(self.0, offset) }
    }
}

/// Plain loads through pointers whose type the verifier knows (BTF tracepoints, fentry). They need
/// no helper call and cost half as much as [`Probed`]. A load that faults yields 0.
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

/// Reads with `bpf_probe_read_kernel`, which accepts any address. The helper writes zeros if it
/// cannot read.
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
    unsafe fn block<const N: usize>(base: *const u8, first: &Global<u32>) -> impl Members {
        // SAFETY: the caller's promise.
        unsafe { Block::<N>::read(base, first) }
    }
}

/// Reads of structures reached from [`Task::current`](crate::kernel::task::Task::current). They are
/// [`Direct`] if the kernel has the helper that returns a typed pointer (Linux 5.15).
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
    /// There must be a `T` at the address; the helper checks that it is readable. All-zero bytes
    /// must be a valid `T`.
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

/// A block of `8 * N` bytes from one read, which costs as much as a read of one member.
struct Block<const N: usize> {
    base: *const u8,
    /// Offset of the block in the structure, a multiple of 8.
    start: u32,
    words: [u64; N],
}

impl<const N: usize> Block<N> {
    /// # Safety
    /// As [`Memory::block`].
    #[inline(always)]
    unsafe fn read(base: *const u8, first: &Global<u32>) -> Self {
        let start = first.load() & !7;
        Block {
            base,
            start,
            // SAFETY: the caller's promise.
            words: unsafe { Probed::read_at(base.wrapping_add(start as usize)) },
        }
    }
}

impl<const N: usize> Members for Block<N> {
    /// Reads a member that is outside of the block on this kernel with a separate read.
    #[inline(always)]
    unsafe fn get<T: Copy>(&self, offset: &Global<u32>) -> T {
        let at = offset.load().wrapping_sub(self.start) as usize;
        // SAFETY: the member is inside of `words`; otherwise the caller's promise.
        unsafe {
            if at <= size_of_val(&self.words) - size_of::<T>() && at % align_of::<T>() == 0 {
                self.words.as_ptr().cast::<u8>().add(at).cast::<T>().read()
            } else {
                Probed::read(self.base, offset)
            }
        }
    }
}
