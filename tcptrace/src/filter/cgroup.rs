//! Cgroup v2 filters, given by directory or id.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::cgroups::{self, Hierarchy};

/// A cgroup of the filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    given: String,
    /// The inode of the cgroup's directory.
    pub id: u64,
    /// Depth below the root cgroup; `None` if unknown.
    pub level: Option<u32>,
}

impl Cgroup {
    /// Makes the cgroup of a container.
    pub fn of_container(id: u64) -> Cgroup {
        Cgroup {
            given: id.to_string(),
            id,
            level: None,
        }
    }
}

/// The kernel programs find a cgroup of the filter only up to this depth below the root cgroup.
const LEVELS: u32 = 32;

impl FromStr for Cgroup {
    type Err = String;

    fn from_str(text: &str) -> Result<Cgroup, String> {
        let (id, directory) = match text.parse() {
            Ok(id) => (id, Hierarchy::open().path(id)),
            Err(_) => {
                let (id, directory) = find(text.as_ref(), cgroups::mount())?;
                (id, Some(directory))
            }
        };
        let level = directory.and_then(|it| cgroups::level(&it));
        if level.is_some_and(|level| level >= LEVELS) {
            return Err(format!(
                "cgroups {LEVELS} levels below the root or deeper are not supported"
            ));
        }
        Ok(Cgroup {
            given: text.to_owned(),
            id,
            level,
        })
    }
}

/// Returns a cgroup's directory with its id. `path` is a path in the file system, or one as in
/// /proc/PID/cgroup, which is relative to the mount.
fn find(path: &Path, mount: Option<PathBuf>) -> Result<(u64, PathBuf), String> {
    let mount = mount.ok_or("cgroups of version 2 are not mounted here; give an id instead")?;
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
    fn an_id_is_accepted_without_a_directory() {
        let cgroup: Cgroup = "4711471147114711".parse().unwrap();
        assert_eq!(cgroup.level, None);
        assert_eq!(
            (cgroup.id, cgroup.to_string()),
            (4711471147114711, "4711471147114711".to_owned())
        );
    }

    #[test]
    fn a_path_that_is_no_cgroup_is_refused_with_its_full_path() {
        let mount = || Some(PathBuf::from("/sys/fs/cgroup"));
        for path in ["/nosuch", "nosuch", "/sys/fs/cgroup/nosuch"] {
            let error = find(path.as_ref(), mount()).unwrap_err();
            assert!(error.starts_with("/sys/fs/cgroup/nosuch is no"), "{error}");
        }
        let error = find("nosuch".as_ref(), None).unwrap_err();
        assert!(error.contains("not mounted"), "{error}");
    }
}
