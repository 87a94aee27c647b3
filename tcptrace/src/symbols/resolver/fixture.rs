// A program with known functions. It prints an address in `save_state` and waits for the end of its
// input.

use std::arch::asm;
use std::io::Read;

fn main() {
    println!("{:x}", std::hint::black_box(handle_request as fn() -> u64)());
    let _ = std::io::stdin().read(&mut [0]);
}

#[inline(never)]
fn handle_request() -> u64 {
    std::hint::black_box(save_state())
}

#[inline(always)]
fn save_state() -> u64 {
    let here: u64;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction only writes the register.
    unsafe {
        asm!("lea {}, [rip]", "nop", out(reg) here);
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the instruction only writes the register.
    unsafe {
        asm!("adr {}, .", out(reg) here);
    }
    here
}
