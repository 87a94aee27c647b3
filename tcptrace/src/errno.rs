//! Error numbers of the kernel under their names.

use std::borrow::Cow;

use nix::errno::Errno;

/// A signal interrupted the call, which the kernel restarts or turns into EINTR; seen only at a
/// system call's exit and never by programs, so libc does not know it (include/linux/errno.h).
const ERESTARTSYS: u32 = 512;

/// The name of a positive errno, such as `ECONNRESET`; `errno N` where there is none.
pub fn name(errno: u32) -> Cow<'static, str> {
    if errno == ERESTARTSYS {
        return "ERESTARTSYS".into();
    }
    match i32::try_from(errno).map(Errno::from_raw) {
        Ok(known) if known != Errno::UnknownErrno => format!("{known:?}").into(),
        _ => format!("errno {errno}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_the_kernel_returns() {
        for (errno, text) in [
            (11, "EAGAIN"),
            (22, "EINVAL"),
            (32, "EPIPE"),
            (104, "ECONNRESET"),
            (110, "ETIMEDOUT"),
            (111, "ECONNREFUSED"),
            (512, "ERESTARTSYS"),
        ] {
            assert_eq!(name(errno), text);
        }
    }

    #[test]
    fn numbers_what_has_no_name() {
        for (errno, text) in [
            (0, "errno 0"),
            (4095, "errno 4095"),
            (u32::MAX, "errno 4294967295"),
        ] {
            assert_eq!(name(errno), text);
        }
    }
}
