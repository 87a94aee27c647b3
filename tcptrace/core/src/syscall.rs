//! Names of system calls, and the groups that explain a late accept().

use syscalls::{aarch64, x86_64};

/// The architecture of a trace's machine. It decides the numbers of the system calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Machine {
    X86_64,
    Aarch64,
    /// The names of the system calls are not known.
    #[default]
    Other,
}

impl Machine {
    /// Returns the architecture that `uname -m` prints.
    pub fn of(name: &str) -> Machine {
        match name {
            "x86_64" => Machine::X86_64,
            "aarch64" => Machine::Aarch64,
            _ => Machine::Other,
        }
    }

    /// Returns the name of a 64-bit system call, such as `epoll_wait`; `None` if unknown.
    pub fn syscall(self, number: u32) -> Option<&'static str> {
        let number = usize::try_from(number).ok()?;
        match self {
            Machine::X86_64 => x86_64::Sysno::new(number).map(|it| it.name()),
            Machine::Aarch64 => aarch64::Sysno::new(number).map(|it| it.name()),
            Machine::Other => None,
        }
    }
}

/// Returns whether a system call waits for connections, or for the events of a set that stays, so
/// that a server without work blocks in it. poll() and select() name their descriptors at each call,
/// and return at once if one of them has a connection. A thread that blocks in them while a
/// connection is queued waits for something else.
pub fn waits_for_work(name: &str) -> bool {
    matches!(
        name,
        "accept" | "accept4" | "epoll_pwait" | "epoll_pwait2" | "epoll_wait" | "io_uring_enter"
    )
}

/// Returns whether a system call waits on or wakes at a futex.
pub fn is_futex(name: &str) -> bool {
    matches!(
        name,
        "futex" | "futex_requeue" | "futex_wait" | "futex_waitv" | "futex_wake"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_names_of_their_machine() {
        let name = |machine, number| Machine::of(machine).syscall(number);
        assert_eq!(name("x86_64", 232), Some("epoll_wait"));
        assert_eq!(name("x86_64", 74), Some("fsync"));
        assert_eq!(name("aarch64", 82), Some("fsync"));
        assert_eq!(name("aarch64", 98), Some("futex"));
        assert_eq!(name("x86_64", 202), Some("futex"));
        assert_eq!(name("x86_64", 100_000), None);
        assert_eq!(name("s390x", 74), None);
    }

    #[test]
    fn known_groups_exist_on_a_machine() {
        let all: Vec<&str> = (0..1024)
            .filter_map(|number| Machine::X86_64.syscall(number))
            .collect();
        assert_eq!(all.iter().filter(|name| waits_for_work(name)).count(), 6);
        assert_eq!(all.iter().filter(|name| is_futex(name)).count(), 5);
    }
}
