//! The ABI that the eBPF programs and the loader share: the library half of `tcptrace-ebpf`.
//!
//! It depends on `core` and `zerocopy` only. It must not use `aya_ebpf`, because that crate exports
//! `memcpy` and similar functions, which would replace libc's in every host binary.
#![no_std]

pub mod abi;
