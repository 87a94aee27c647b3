//! Frozen globals: structure offsets and settings.
//!
//! The loader sets them before the programs are verified, so the verifier sees constants. It
//! type-checks a load at a structure offset, and drops branches that are disabled.

use aya_ebpf::Global;
use tcptrace_ebpf::{for_each_bit, for_each_offset};

macro_rules! offset_globals {
    ($($global:ident = $path:literal;)*) => {
        $(
            #[doc = concat!("Offset of `", $path, "` in bytes.")]
            #[unsafe(no_mangle)]
            pub static $global: Global<u32> = Global::new(0);
        )*
    };
}
for_each_offset!(offset_globals);

macro_rules! bit_globals {
    ($($global:ident = $path:literal;)*) => {
        $(
            #[doc = concat!("Offset of `", $path, "` in bits.")]
            #[unsafe(no_mangle)]
            pub static $global: Global<u32> = Global::new(0);
        )*
    };
}
for_each_bit!(bit_globals);

// `abi::setting` documents these.
#[unsafe(no_mangle)]
pub static MACHINE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static FILTER: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static CGROUP_LEVELS: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static COOKIE_HELPER: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static ACCEPT_ARGS: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static TASK_HELPERS: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static WHY: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static SWITCH_STATE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static WAKE_AT: Global<u32> = Global::new(u32::MAX);
#[unsafe(no_mangle)]
pub static TP_SKADDR: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static TP_OLDSTATE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static TP_NEWSTATE: Global<u32> = Global::new(0);
