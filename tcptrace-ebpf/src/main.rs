//! The eBPF programs: each hook reads the kernel's structures, asks the filter, and writes one
//! record.
//!
//! A record passes from `hooks/*` to `filter`, `emit` and the ring buffer. `kernel/` reads the
//! kernel's structures, `globals` holds the frozen globals, and `maps` the maps. The programs keep
//! little state: accept() calls in flight, awaited ACKs, the processes of traced sockets, and acceptors.
//! Everything that can be computed later is left to the loader.
#![no_std]
#![no_main]
#![feature(core_intrinsics, stmt_expr_attributes)]
#![allow(internal_features, reason = "atomic addition, see maps.rs")]

mod acceptors;
mod emit;
mod filter;
mod globals;
mod hooks;
mod kernel;
mod maps;

/// The helpers that read kernel memory are GPL-only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Loops forever. The verifier refuses to load such a loop, so no panic can remain in the object.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
