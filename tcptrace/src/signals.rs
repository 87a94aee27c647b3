//! The signals that end a trace.

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::exit;

/// A second SIGINT within this time is no impatient person's: `timeout` and the like signal a
/// process and then its process group, which has it too.
const ONE_SIGNAL: Duration = Duration::from_millis(500);

/// SIGINT, SIGTERM and SIGHUP end the trace in good order. A second SIGINT ends the process.
pub struct Signals {
    first: Arc<Notify>,
}

impl Signals {
    /// Takes the signals from now on. They have a thread of their own: the others may be waiting, for
    /// a reader that does not read or for the kernel to detach.
    pub fn new() -> io::Result<Signals> {
        let first = Arc::new(Notify::new());
        let notify = first.clone();
        let (tell, taken) = mpsc::channel();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let end = |runtime: Runtime| {
                    runtime.block_on(wait(&notify, || {
                        let _ = tell.send(Ok(()));
                    }))
                };
                if let Err(error) = runtime.and_then(end) {
                    let _ = tell.send(Err(error));
                }
            })?;
        // Nothing comes from a thread that has panicked.
        taken.recv().map_err(io::Error::other)??;
        Ok(Signals { first })
    }

    /// Waits for the first of them.
    pub async fn first(&self) {
        self.first.notified().await;
    }
}

/// Says when it has taken the signals, and goes on as long as the process.
async fn wait(first: &Notify, taken: impl FnOnce()) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // `nohup` has it ignored.
    let mut hangup = match is_ignored(libc::SIGHUP) {
        true => None,
        false => Some(signal(SignalKind::hangup())?),
    };
    taken();
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
            // The kernel detaches the programs when their descriptors are closed.
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

/// Whether whoever started the process has it ignore a signal.
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: only asks; an `action` of zeros is a valid one to overwrite.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}
