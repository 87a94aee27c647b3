//! System calls that have nothing to do with TCP: half of them do next to nothing, half read.

use std::{fs::File, io::Read as _, thread, time::Duration};

use anyhow::{Context as _, Result};

use crate::{Shared, join};

/// Gives the system calls made, and the seconds that it took.
pub fn run(time: Duration) -> Result<(u64, f64)> {
    let calls = &Shared::default();
    thread::scope(|scope| {
        let caller = scope.spawn(|| call(calls));
        let measured = calls.measure(time);
        join(caller).flatten().map(|()| measured)
    })
}

fn call(calls: &Shared) -> Result<()> {
    let mut zeros = File::open("/dev/zero").context("cannot open /dev/zero")?;
    while calls.goes_on() {
        // SAFETY: takes nothing and cannot fail.
        unsafe { libc::getppid() };
        calls.count();
        zeros.read_exact(&mut [0; 64])?;
        calls.count();
    }
    Ok(())
}
