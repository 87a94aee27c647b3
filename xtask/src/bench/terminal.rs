//! A terminal that scrolls as fast as it is written to, or not at all, and keeps its last page.

use std::{
    fs::File,
    io::Read as _,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::pty::{Winsize, openpty};

/// Bytes that are kept.
const PAGE: usize = 64 << 10;

/// The terminal's own side.
pub struct Terminal {
    shown: Arc<Mutex<Shown>>,
    /// Ctrl-S was pressed.
    stopped: Arc<AtomicBool>,
    reader: thread::JoinHandle<()>,
}

#[derive(Default)]
struct Shown {
    bytes: usize,
    last: Vec<u8>,
}

impl Terminal {
    /// The terminal, and what a program writes to.
    pub fn open() -> Result<(Terminal, OwnedFd)> {
        let size = Winsize {
            ws_row: 50,
            ws_col: 160,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = openpty(Some(&size), None).context("cannot open a terminal")?;
        let shown = Arc::<Mutex<Shown>>::default();
        let stopped = Arc::<AtomicBool>::default();
        let reader = {
            let (shown, stopped) = (shown.clone(), stopped.clone());
            let master = File::from(pair.master);
            thread::spawn(move || read(master, &shown, &stopped))
        };
        let terminal = Terminal {
            shown,
            stopped,
            reader,
        };
        Ok((terminal, pair.slave))
    }

    /// How much it has shown so far.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Stops it, as Ctrl-S does, or has it go on.
    pub fn stop(&self, stopped: bool) {
        self.stopped.store(stopped, Ordering::Relaxed);
    }

    /// The last page, when the last program that writes to it has ended.
    pub fn last_page(self) -> Vec<u8> {
        // A panic leaves what was shown before.
        let _ = self.reader.join();
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut shown.last)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(mut master: File, shown: &Mutex<Shown>, stopped: &AtomicBool) {
    let mut bytes = vec![0; PAGE];
    // EIO when nobody has the other side open any more.
    while let Ok(n @ 1..) = master.read(&mut bytes) {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.bytes += n;
        shown.last.extend_from_slice(&bytes[..n]);
        let old = shown.last.len().saturating_sub(PAGE);
        shown.last.drain(..old);
        drop(shown);
        while stopped.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
