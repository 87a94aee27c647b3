//! The processors that run the same object, and what differs between them.

/// Values of the setting [`MACHINE`](super::setting::MACHINE).
pub const X86_64: u32 = 0;
pub const AARCH64: u32 = 1;

macro_rules! syscalls {
    ($machine:ident, $table:literal: $($name:ident = $number:literal;)*) => {
        #[doc = concat!("Numbers of 64-bit system calls, ", $table, ".")]
        pub mod $machine {
            $(pub const $name: u32 = $number;)*

            /// All of them by name.
            pub const ALL: &[(&str, u32)] = &[$((stringify!($name), $number)),*];
        }
    };
}

syscalls! {
    x86_64, "arch/x86/entry/syscalls/syscall_64.tbl":
    WRITE = 1;
    CLOSE = 3;
    WRITEV = 20;
    DUP2 = 33;
    CONNECT = 42;
    ACCEPT = 43;
    SENDTO = 44;
    SENDMSG = 46;
    SHUTDOWN = 48;
    LISTEN = 50;
    EXECVE = 59;
    EPOLL_WAIT = 232;
    EPOLL_PWAIT = 281;
    ACCEPT4 = 288;
    DUP3 = 292;
    SENDMMSG = 307;
    EXECVEAT = 322;
    IO_URING_ENTER = 426;
    CLOSE_RANGE = 436;
    EPOLL_PWAIT2 = 441;
}

syscalls! {
    aarch64, "include/uapi/asm-generic/unistd.h":
    EPOLL_PWAIT = 22;
    DUP3 = 24;
    CLOSE = 57;
    WRITE = 64;
    WRITEV = 66;
    LISTEN = 201;
    ACCEPT = 202;
    CONNECT = 203;
    SENDTO = 206;
    SHUTDOWN = 210;
    SENDMSG = 211;
    EXECVE = 221;
    ACCEPT4 = 242;
    SENDMMSG = 269;
    EXECVEAT = 281;
    IO_URING_ENTER = 426;
    CLOSE_RANGE = 436;
    EPOLL_PWAIT2 = 441;
}
