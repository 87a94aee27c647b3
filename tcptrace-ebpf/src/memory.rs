//! Two ways to read kernel memory.

use aya_ebpf::Global;
use aya_ebpf::helpers::bpf_probe_read_kernel;

/// How a program reads the structures that a hook hands it.
pub trait Memory {
    /// Reads a `T` at `base` + `offset`.
    ///
    /// # Safety
    /// `base` + `offset` must be where the kernel keeps a `T`: a pointer from the hook or read
    /// through this trait, and an offset from kernel BTF.
    unsafe fn read<T: Copy>(base: *const u8, offset: &Global<u32>) -> Option<T>;
}

/// Plain loads through pointers that the verifier knows the type of (BTF tracepoints, fentry):
/// no helper call, half the cost of [`Probed`]. The kernel makes a fault read as 0.
pub struct Direct;

impl Memory for Direct {
    #[inline(always)]
    unsafe fn read<T: Copy>(base: *const u8, offset: &Global<u32>) -> Option<T> {
        // SAFETY: the caller's promise, which the verifier checks against kernel BTF.
        Some(unsafe { *base.add(offset.load() as usize).cast::<T>() })
    }
}

/// `bpf_probe_read_kernel`: any address, and a fault is an error.
pub struct Probed;

impl Memory for Probed {
    #[inline(always)]
    unsafe fn read<T: Copy>(base: *const u8, offset: &Global<u32>) -> Option<T> {
        // SAFETY: the caller's promise.
        unsafe { Probed::read_at(base.wrapping_add(offset.load() as usize)) }
    }
}

impl Probed {
    /// Reads a `T` at an address.
    ///
    /// # Safety
    /// The kernel must keep a `T` there; the helper checks that the address can be read.
    #[inline(always)]
    pub unsafe fn read_at<T: Copy>(at: *const u8) -> Option<T> {
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_kernel(at.cast::<T>()) }.ok()
    }
}
