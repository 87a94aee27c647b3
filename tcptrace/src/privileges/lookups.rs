//! The thread that keeps the capabilities for looking things up.
//!
//! It runs only the lookups that are passed to it: which network namespaces exist, which sockets and
//! counters they have, which directory and container a cgroup has. It reads no records and writes no
//! files.

use std::io;
use std::sync::mpsc::{Sender, channel, sync_channel};

use super::{Role, keep};

type Lookup = Box<dyn FnOnce() + Send>;

/// Passes lookups to the thread. The thread ends with the last clone of this value.
#[derive(Clone)]
pub struct Lookups(Sender<Lookup>);

impl Lookups {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system starts no more threads.
    pub fn start() -> io::Result<Lookups> {
        let (sender, received) = channel::<Lookup>();
        std::thread::Builder::new()
            .name("lookups".into())
            .spawn(move || {
                keep(Role::Lookups);
                received.into_iter().for_each(|lookup| lookup());
            })?;
        Ok(Lookups(sender))
    }

    /// Runs `look` on the thread and waits for its result. `None` if an earlier lookup has panicked.
    pub fn run<T: Send + 'static>(&self, look: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (answer, answered) = sync_channel(1);
        let lookup = move || {
            // The receiver waits below, so this cannot fail.
            let _ = answer.send(look());
        };
        self.0.send(Box::new(lookup)).ok()?;
        answered.recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookup_runs_on_the_thread_and_its_result_comes_back() {
        let lookups = Lookups::start().unwrap();
        let name = lookups.run(|| std::thread::current().name().map(str::to_owned));
        assert_eq!(name.flatten().as_deref(), Some("lookups"));
    }

    #[test]
    fn after_a_panic_lookups_find_nothing() {
        let lookups = Lookups::start().unwrap();
        let first: Option<()> = lookups.run(|| panic!("on purpose"));
        assert_eq!((first, lookups.run(|| 1)), (None, None));
    }
}
