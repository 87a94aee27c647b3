//! Two ways to read kernel memory. Either reads a fault as zero, without a branch: the verifier
//! walks every path, and an error path per field would multiply them.

use core::mem::MaybeUninit;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

/// How a program reads the structures that a hook hands it.
pub trait Memory {
    /// Reads a `T` at `base` + `offset`.
    ///
    /// # Safety
    /// `base` + `offset` must be where the kernel keeps a `T`: a pointer from the hook or read
    /// through this trait, and an offset from kernel BTF. All zero must be a `T`.
    unsafe fn read<T: Copy>(base: *const u8, offset: &Global<u32>) -> T;
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
}

/// `bpf_probe_read_kernel`: any address, and the helper zeroes what it cannot read.
pub struct Probed;

impl Memory for Probed {
    #[inline(always)]
    unsafe fn read<T: Copy>(base: *const u8, offset: &Global<u32>) -> T {
        // SAFETY: the caller's promise.
        unsafe { Probed::read_at(base.wrapping_add(offset.load() as usize)) }
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
