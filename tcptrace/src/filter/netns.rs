//! Network namespace filters: given by inode, by a name of `ip netns`, or by a file.

use std::fmt;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

/// Directory where `ip netns` creates its names.
const NAMES: &str = "/run/netns";

/// `NS_GET_NSTYPE`, include/uapi/linux/nsfs.h.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// A network namespace of the filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    given: String,
    /// The inode number, as in `/proc/PID/ns/net`.
    pub inode: u32,
}

impl FromStr for Netns {
    type Err = String;

    fn from_str(text: &str) -> Result<Netns, String> {
        let inode = match text {
            "" => return Err(FORMS.into()),
            "self" => inode("/proc/self/ns/net".as_ref())?,
            _ if text.contains('/') => inode(text.as_ref())?,
            _ => match text.parse() {
                Ok(inode) => inode,
                Err(_) => inode(&Path::new(NAMES).join(text))?,
            },
        };
        Ok(Netns {
            given: text.to_owned(),
            inode,
        })
    }
}

const FORMS: &str = "a network namespace is `self`, a name of `ip netns`, an inode, or a file \
                     such as /proc/PID/ns/net";

/// Returns the inode of the network namespace that a file refers to.
fn inode(path: &Path) -> Result<u32, String> {
    let file = File::open(path).map_err(|error| {
        let path = path.display();
        format!("cannot open {path} ({}); {FORMS}", error.kind())
    })?;
    // SAFETY: the descriptor is open, and the request has no argument.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    let metadata = file.metadata().ok();
    match metadata.filter(|_| kind == libc::CLONE_NEWNET) {
        Some(metadata) => Ok(metadata.ino() as u32),
        None => Err(format!("{} is no network namespace", path.display())),
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_accepted_by_name_by_path_and_by_inode() {
        let own: Netns = "self".parse().unwrap();
        let path: Netns = "/proc/thread-self/ns/net".parse().unwrap();
        assert_eq!(own.inode, path.inode);
        let number: Netns = own.inode.to_string().parse().unwrap();
        assert_eq!(own.inode, number.inode);
        assert_eq!(path.to_string(), "/proc/thread-self/ns/net");
    }

    #[test]
    fn a_file_that_is_no_network_namespace_is_refused_with_its_path() {
        let error = |text: &str| text.parse::<Netns>().unwrap_err();
        assert!(error("").contains("ip netns"));
        assert!(error("nosuch").contains("/run/netns/nosuch"));
        assert!(error("/proc/self/ns/mnt").contains("is no network namespace"));
        assert!(error("/proc/self/status").contains("is no network namespace"));
    }
}
