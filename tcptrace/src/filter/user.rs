//! User filters, given by name or number.

use std::fmt;
use std::str::FromStr;

/// A user of the filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    given: String,
    pub uid: u32,
}

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<User, String> {
        let known = |uid| User {
            given: text.to_owned(),
            uid,
        };
        if let Ok(uid) = text.parse() {
            return Ok(known(uid));
        }
        match nix::unistd::User::from_name(text) {
            Ok(Some(user)) => Ok(known(user.uid.as_raw())),
            _ => Err("there is no such user here; give a name or a user id".into()),
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_accepted_by_name_and_by_number() {
        let user: User = "12345".parse().unwrap();
        assert_eq!((user.uid, user.to_string()), (12_345, "12345".to_owned()));
        let root: User = "root".parse().unwrap();
        assert_eq!((root.uid, root.to_string()), (0, "root".to_owned()));
    }

    #[test]
    fn an_unknown_user_is_refused() {
        for text in ["", "-1", "4294967296", "no such user", "1000x"] {
            assert!(text.parse::<User>().is_err(), "{text:?}");
        }
    }
}
