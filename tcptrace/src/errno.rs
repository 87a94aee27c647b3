//! Error numbers of the kernel under their names.

use std::borrow::Cow;

use nix::errno::Errno;

/// The kernel's own, which no program sees, so libc does not know them (include/linux/errno.h):
/// refusals of BPF programs among them.
const INTERNAL: [(u32, &str); 19] = [
    (512, "ERESTARTSYS"),
    (513, "ERESTARTNOINTR"),
    (514, "ERESTARTNOHAND"),
    (515, "ENOIOCTLCMD"),
    (516, "ERESTART_RESTARTBLOCK"),
    (517, "EPROBE_DEFER"),
    (518, "EOPENSTALE"),
    (519, "ENOPARAM"),
    (521, "EBADHANDLE"),
    (522, "ENOTSYNC"),
    (523, "EBADCOOKIE"),
    (524, "ENOTSUPP"),
    (525, "ETOOSMALL"),
    (526, "ESERVERFAULT"),
    (527, "EBADTYPE"),
    (528, "EJUKEBOX"),
    (529, "EIOCBQUEUED"),
    (530, "ERECALLCONFLICT"),
    (531, "ENOGRACE"),
];

/// What connections end with day in, day out: their names cost no allocation.
const USUAL: [(Errno, &str); 9] = [
    (Errno::EAGAIN, "EAGAIN"),
    (Errno::EINTR, "EINTR"),
    (Errno::EPIPE, "EPIPE"),
    (Errno::ECONNABORTED, "ECONNABORTED"),
    (Errno::ECONNREFUSED, "ECONNREFUSED"),
    (Errno::ECONNRESET, "ECONNRESET"),
    (Errno::EHOSTUNREACH, "EHOSTUNREACH"),
    (Errno::ENETUNREACH, "ENETUNREACH"),
    (Errno::ETIMEDOUT, "ETIMEDOUT"),
];

/// The name of a positive errno, such as `ECONNRESET`; `errno N` where there is none.
#[inline]
pub fn name(errno: u32) -> Cow<'static, str> {
    let usual = USUAL.iter().find(|(known, _)| *known as u32 == errno);
    match usual {
        Some((_, name)) => Cow::Borrowed(name),
        None => unusual(errno),
    }
}

#[cold]
fn unusual(errno: u32) -> Cow<'static, str> {
    if let Some((_, name)) = INTERNAL.iter().find(|(number, _)| *number == errno) {
        return Cow::Borrowed(name);
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
            (516, "ERESTART_RESTARTBLOCK"),
            (524, "ENOTSUPP"),
        ] {
            assert_eq!(name(errno), text);
        }
    }

    #[test]
    fn the_usual_ones_have_their_own_names() {
        for (errno, text) in USUAL {
            assert_eq!(format!("{errno:?}"), text);
            assert!(matches!(name(errno as u32), Cow::Borrowed(name) if name == text));
        }
    }

    #[test]
    fn numbers_what_has_no_name() {
        for (errno, text) in [
            (0, "errno 0"),
            (520, "errno 520"),
            (4095, "errno 4095"),
            (u32::MAX, "errno 4294967295"),
        ] {
            assert_eq!(name(errno), text);
        }
    }
}
