//! The eBPF programs: each hook reads what it knows, asks the filter, and writes one record.
//!
//! `hooks/*` → `filter` → `emit` → the ring buffer. `kernel/` reads the kernel's structures, `globals`
//! holds the frozen globals, `maps` the maps. The only state is that of accept() calls in flight and
//! of the ACKs that are waited for. Everything that can be worked out later is left to the loader.
#![no_std]
#![no_main]
#![feature(core_intrinsics, stmt_expr_attributes)]
#![allow(internal_features, reason = "atomic addition, see maps.rs")]

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

/// A panic that survives optimisation is an endless loop, which the verifier refuses to load.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
