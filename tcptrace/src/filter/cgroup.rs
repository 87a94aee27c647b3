//! Cgroups of version 2, by directory or id.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::cgroups::{self, Cgroups};

/// A cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    given: String,
    /// The inode of its directory.
    pub id: u64,
    /// How many levels it lies below the root; `None` when that is not known.
    pub level: Option<u32>,
}

/// The kernel side looks at no deeper ones.
const LEVELS: u32 = 32;

impl FromStr for Cgroup {
    type Err = String;

    fn from_str(text: &str) -> Result<Cgroup, String> {
        let (id, directory) = match text.parse() {
            Ok(id) => (id, Cgroups::new().path(id)),
            Err(_) => {
                let (id, directory) = find(text.as_ref(), cgroups::mount())?;
                (id, Some(directory))
            }
        };
        let level = directory.and_then(|it| cgroups::level(&it));
        if level.is_some_and(|level| level >= LEVELS) {
            return Err(format!("it lies {LEVELS} levels below the root, or deeper"));
        }
        Ok(Cgroup {
            given: text.to_owned(),
            id,
            level,
        })
    }
}

/// A directory and its id: a path in the file system, or one as in /proc/PID/cgroup, which begins at
/// the mount.
fn find(path: &Path, mount: Option<PathBuf>) -> Result<(u64, PathBuf), String> {
    let mount = mount.ok_or("cgroups of version 2 are not mounted here; an id will do, too")?;
    let below = mount.join(path.strip_prefix("/").unwrap_or(path));
    let whole = path.starts_with(&mount).then(|| path.to_owned());
    let directory = whole.unwrap_or(below);
    match fs::metadata(directory.join("cgroup.procs")).and_then(|_| fs::metadata(&directory)) {
        Ok(metadata) => Ok((metadata.ino(), directory)),
        Err(_) => Err(format!(
            "{} is no cgroup; a cgroup is a directory below {}, or an id",
            directory.display(),
            mount.display()
        )),
    }
}

impl fmt::Display for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_needs_no_file() {
        let cgroup: Cgroup = "4711471147114711".parse().unwrap();
        assert_eq!(cgroup.level, None);
        assert_eq!(
            (cgroup.id, cgroup.to_string()),
            (4711471147114711, "4711471147114711".to_owned())
        );
    }

    #[test]
    fn what_is_no_cgroup_is_refused_with_its_path() {
        let mount = || Some(PathBuf::from("/sys/fs/cgroup"));
        for path in ["/nosuch", "nosuch", "/sys/fs/cgroup/nosuch"] {
            let told = find(path.as_ref(), mount()).unwrap_err();
            assert!(told.starts_with("/sys/fs/cgroup/nosuch is no"), "{told}");
        }
        let told = find("nosuch".as_ref(), None).unwrap_err();
        assert!(told.contains("not mounted"), "{told}");
    }
}
