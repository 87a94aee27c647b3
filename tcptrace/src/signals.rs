//! Signals that end a trace.

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::exit;
use crate::privileges;

/// A second SIGINT within this time is ignored. `timeout` and similar tools signal a process and
/// then its process group, so that one interrupt arrives twice.
const ONE_SIGNAL: Duration = Duration::from_millis(500);

/// SIGINT, SIGTERM and SIGHUP end the trace normally. A second SIGINT ends the process immediately.
pub struct Signals {
    first: Arc<Notify>,
}

impl Signals {
    /// Installs the handlers. The signals have their own thread, because the other threads may
    /// block on a slow reader or on the kernel's detaching.
    pub fn new() -> io::Result<Signals> {
        let first = Arc::new(Notify::new());
        let notify = first.clone();
        let (installed, done) = mpsc::channel();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                privileges::give_up();
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let end = |runtime: Runtime| {
                    runtime.block_on(wait(&notify, || {
                        let _ = installed.send(Ok(()));
                    }))
                };
                if let Err(error) = runtime.and_then(end) {
                    let _ = installed.send(Err(error));
                }
            })?;
        // `recv` fails if the thread panicked before it sent a result.
        done.recv().map_err(io::Error::other)??;
        Ok(Signals { first })
    }

    /// Waits for the first signal.
    pub async fn first(&self) {
        self.first.notified().await;
    }
}

/// Calls `installed` when the handlers are in place, then handles signals until the process ends.
async fn wait(first: &Notify, installed: impl FnOnce()) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // `nohup` starts a process with SIGHUP ignored. It must stay ignored.
    let mut hangup = match is_ignored(libc::SIGHUP) {
        true => None,
        false => Some(signal(SignalKind::hangup())?),
    };
    installed();
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = received(&mut hangup) => {}
    }
    let at = Instant::now();
    first.notify_one();
    loop {
        interrupt.recv().await;
        if at.elapsed() >= ONE_SIGNAL {
            // The kernel detaches the programs when it closes their descriptors.
            exit::at_once(exit::INTERRUPTED);
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Returns true if the process was started with this signal ignored.
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: the call only reads the current action. A zeroed `action` is valid for writing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}
