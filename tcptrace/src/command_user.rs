//! The user that a traced command runs as.

use std::env;
use std::ffi::{CString, OsStr, OsString};

use nix::unistd::{Gid, Uid, User, getgrouplist};

use crate::exit::Usage;

/// Variables that a command of another user keeps, besides those that begin with `LC_`. sudo keeps the
/// same, and PATH, which sudo has set already.
const KEPT: [&str; 6] = ["COLORTERM", "LANG", "LANGUAGE", "PATH", "TERM", "TZ"];

/// A user with all groups.
pub struct Identity {
    pub uid: Uid,
    gid: Gid,
    groups: Vec<libc::gid_t>,
    /// HOME, USER, LOGNAME and SHELL.
    environment: Vec<(&'static str, OsString)>,
}

impl Identity {
    /// Returns the user that a command runs as: `wanted`, or under sudo the one who called it. `None` if
    /// the command runs as this process does.
    ///
    /// # Errors
    /// If the user is unknown, or if this process may not change to it.
    pub fn of_command(wanted: Option<&User>) -> Result<Option<Identity>, Usage> {
        let own = Uid::effective();
        let user = match wanted {
            Some(user) => user.clone(),
            None => match caller_of_sudo(env::var_os("SUDO_UID").as_deref(), own)? {
                Some(user) => user,
                None => return Ok(None),
            },
        };
        if user.uid == own {
            return Ok(None);
        }
        if !own.is_root() {
            return Err(Usage(format!(
                "only root can run COMMAND as {}; leave --user out",
                user.name
            )));
        }
        Identity::of(&user).map(Some)
    }

    fn of(user: &User) -> Result<Identity, Usage> {
        let unknown = |why: &dyn std::fmt::Display| {
            let name = &user.name;
            Usage(format!("cannot find the groups of the user {name}: {why}"))
        };
        let name = CString::new(user.name.as_str()).map_err(|error| unknown(&error))?;
        let groups = getgrouplist(&name, user.gid).map_err(|error| unknown(&error.desc()))?;
        let text = |value: &str| OsString::from(value);
        Ok(Identity {
            uid: user.uid,
            gid: user.gid,
            groups: groups.into_iter().map(Gid::as_raw).collect(),
            environment: vec![
                ("HOME", user.dir.clone().into_os_string()),
                ("USER", text(&user.name)),
                ("LOGNAME", text(&user.name)),
                ("SHELL", user.shell.clone().into_os_string()),
            ],
        })
    }

    /// Returns the environment of the command, from that of this process.
    pub fn environment(
        &self,
        own: impl Iterator<Item = (OsString, OsString)>,
    ) -> Vec<(OsString, OsString)> {
        let kept = own.filter(|(name, _)| is_kept(name));
        let new = self.environment.iter();
        kept.chain(new.map(|(name, value)| (name.into(), value.clone())))
            .collect()
    }

    /// Changes the calling process to this user. Async-signal-safe.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn assume(&self) -> std::io::Result<()> {
        // SAFETY: plain system calls. `groups` is valid for its length.
        let done = unsafe {
            libc::setgroups(self.groups.len(), self.groups.as_ptr()) == 0
                && libc::setgid(self.gid.as_raw()) == 0
                && libc::setuid(self.uid.as_raw()) == 0
        };
        match done {
            true => Ok(()),
            false => Err(std::io::Error::last_os_error()),
        }
    }
}

fn is_kept(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b"LC_") || KEPT.iter().any(|it| it.as_bytes() == name)
}

/// Returns the user who called sudo, or `None` if this process does not run as root under sudo.
fn caller_of_sudo(sudo_uid: Option<&OsStr>, own: Uid) -> Result<Option<User>, Usage> {
    let Some(text) = sudo_uid.filter(|_| own.is_root()) else {
        return Ok(None);
    };
    let uid = text.to_str().and_then(|text| text.parse().ok());
    match uid.map(Uid::from_raw).map(User::from_uid) {
        Some(Ok(Some(user))) => Ok(Some(user)),
        _ => Err(Usage(format!(
            "there is no user {} here (SUDO_UID) to run COMMAND as; choose one with --user NAME",
            text.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> User {
        User::from_name("nobody").unwrap().unwrap()
    }

    #[test]
    fn a_command_runs_as_the_caller_of_sudo_only_if_root_was_called() {
        let root = Uid::from_raw(0);
        let uid = nobody().uid;
        let text = OsString::from(uid.to_string());
        let found = caller_of_sudo(Some(&text), root).unwrap();
        assert_eq!(found.map(|it| it.uid), Some(uid));
        assert!(caller_of_sudo(Some(&text), uid).unwrap().is_none());
        assert!(caller_of_sudo(None, root).unwrap().is_none());
        for wrong in ["", "-1", "1x", "4294967294"] {
            let refused = caller_of_sudo(Some(OsStr::new(wrong)), root).unwrap_err();
            assert!(refused.0.contains("--user NAME"), "{wrong}: {refused}");
        }
    }

    #[test]
    fn the_environment_has_only_harmless_variables_and_those_of_the_user() {
        let own = [
            ("LD_PRELOAD", "x"),
            ("PATH", "/bin"),
            ("LC_ALL", "C"),
            ("HOME", "/root"),
            ("SECRET", "1"),
            ("TERM", "xterm"),
        ];
        let own = own.map(|(name, value)| (name.into(), value.into()));
        let user = nobody();
        let environment = Identity::of(&user).unwrap().environment(own.into_iter());
        let environment: Vec<String> = environment
            .iter()
            .map(|(name, value)| format!("{}={}", name.display(), value.display()))
            .collect();
        let expected = [
            "PATH=/bin".to_owned(),
            "LC_ALL=C".to_owned(),
            "TERM=xterm".to_owned(),
            format!("HOME={}", user.dir.display()),
            "USER=nobody".to_owned(),
            "LOGNAME=nobody".to_owned(),
            format!("SHELL={}", user.shell.display()),
        ];
        assert_eq!(environment, expected);
    }
}
