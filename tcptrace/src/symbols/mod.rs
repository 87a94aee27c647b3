//! Names of the functions in stacks.
//!
//! A thread of its own finds them, because the first stack of a large program takes long.
//!
//! The files that it reads were chosen by the traced processes, while the tracer has the privileges
//! of root. It reads only regular files of bounded size, never maps them into memory, and follows no
//! path that such a file names.

pub(crate) mod image;
pub(crate) mod kernel;
pub(crate) mod maps;
pub(crate) mod perf_map;
mod regular;
mod resolver;

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use tokio::sync::mpsc;

use self::maps::Mapping;
pub use self::resolver::RawStack;
use self::resolver::Resolver;
use crate::capture::pids;
use crate::event::Stack;
use crate::privileges::{self, Role};

/// Upper bound on requests and answers that wait.
const WAITING: usize = 1024;

/// Returns what this process cannot find out about stacks.
pub fn unseen() -> Vec<String> {
    let kernel = kernel::is_hidden().then_some(
        "names of kernel functions in stacks: /proc/kallsyms hides their addresses \
         (kernel.kptr_restrict, CAP_SYSLOG)",
    );
    let user = (!pids::are_kernels()).then_some(
        "names of user functions in stacks: process ids in this PID namespace differ from the \
         kernel's",
    );
    let others = privileges::unseen_in_stacks(privileges::effective());
    let all = kernel.into_iter().chain(user).chain(others);
    all.map(str::to_owned).collect()
}

/// A request to the thread.
#[derive(Debug)]
pub enum Request {
    /// Read the symbols of this process before its first stack.
    Prepare(u32),
    Resolve(RawStack),
}

/// The thread that finds functions. It ends when this value is dropped, after its current request.
pub struct Symbols {
    requests: SyncSender<Request>,
    answers: mpsc::Receiver<Stack>,
}

impl Symbols {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system starts no more threads.
    pub fn start() -> io::Result<Symbols> {
        let (symbols, received, answer) = Symbols::channels();
        std::thread::Builder::new()
            .name("symbols".into())
            .spawn(move || work(&received, &answer))?;
        Ok(symbols)
    }

    /// Returns the value, and the ends of its channels that belong to the thread.
    pub fn channels() -> (Symbols, Receiver<Request>, mpsc::Sender<Stack>) {
        let (requests, received) = sync_channel(WAITING);
        let (answer, answers) = mpsc::channel(WAITING);
        (Symbols { requests, answers }, received, answer)
    }

    /// Reads the symbols of a process, unless too many requests wait.
    pub fn prepare(&self, pid: u32) {
        // Its first stack reads them as well.
        let _ = self.requests.try_send(Request::Prepare(pid));
    }

    /// Requests the functions of a stack. Returns false if too many requests wait.
    pub fn request(&self, stack: RawStack) -> bool {
        self.requests.try_send(Request::Resolve(stack)).is_ok()
    }

    /// Returns an answer that has arrived.
    pub fn try_next(&mut self) -> Option<Stack> {
        self.answers.try_recv().ok()
    }

    /// Waits for the next answer. Returns `None` if the thread has ended.
    pub async fn next(&mut self) -> Option<Stack> {
        self.answers.recv().await
    }
}

fn work(requests: &Receiver<Request>, answers: &mpsc::Sender<Stack>) {
    privileges::keep(Role::SymbolsBegin);
    let mut resolver = Resolver::new();
    privileges::keep(Role::Symbols);
    // Files that are read before they are needed. Requests come first.
    let mut unread: VecDeque<(u32, Mapping)> = VecDeque::new();
    loop {
        let request = match unread.is_empty() {
            true => requests.recv().map_err(|_| TryRecvError::Disconnected),
            false => requests.try_recv(),
        };
        match request {
            Ok(Request::Prepare(pid)) => {
                let mappings = resolver.prepare(pid).into_iter();
                unread.extend(mappings.map(|mapping| (pid, mapping)));
            }
            Ok(Request::Resolve(raw)) => {
                if answers.blocking_send(resolver.resolve(&raw)).is_err() {
                    return;
                }
            }
            Err(TryRecvError::Empty) => {
                if let Some((pid, mapping)) = unread.pop_front() {
                    resolver.read(pid, &mapping);
                }
            }
            Err(TryRecvError::Disconnected) => return,
        }
    }
}
