//! An uncompressed initramfs, which every kernel accepts.
//!
//! Format: <https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

const FOLDER: u32 = 0o040755;
const FILE: u32 = 0o100644;
const CONSOLE: u32 = 0o020600;

/// Writes a newc archive entry by entry.
pub struct Initramfs<W> {
    out: W,
    inodes: u32,
    /// The folders that were written.
    folders: BTreeSet<PathBuf>,
}

impl<W: Write> Initramfs<W> {
    /// Creates the archive with the folders and the console that an init needs.
    pub fn new(out: W) -> io::Result<Initramfs<W>> {
        let mut archive = Initramfs {
            out,
            inodes: 0,
            folders: BTreeSet::new(),
        };
        for folder in ["bin", "dev", "etc", "modules", "proc", "sys", "tmp"] {
            archive.folder(Path::new(folder))?;
        }
        archive.entry("dev/console", CONSOLE, (5, 1), &[])?;
        Ok(archive)
    }

    pub fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.entry(name, FILE, (0, 0), content)
    }

    /// Adds a copy of a file, with its permissions.
    pub fn copy(&mut self, name: &str, of: &Path) -> io::Result<()> {
        let mode = 0o100000 | fs::metadata(of)?.permissions().mode() & 0o777;
        self.entry(name, mode, (0, 0), &fs::read(of)?)
    }

    /// Adds a copy of a file at an absolute path, and its folders.
    pub fn copy_with_folder(&mut self, path: &Path, of: &Path) -> io::Result<()> {
        let path = path.strip_prefix("/").map_err(io::Error::other)?;
        if let Some(folder) = path.parent() {
            self.folder(folder)?;
        }
        self.copy(&path.to_string_lossy(), of)
    }

    /// Adds a folder after its parents, unless it exists.
    fn folder(&mut self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) => self.folder(parent)?,
            // The root.
            None => return Ok(()),
        }
        match self.folders.insert(path.to_owned()) {
            true => self.entry(&path.to_string_lossy(), FOLDER, (0, 0), &[]),
            false => Ok(()),
        }
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) -> io::Result<()> {
        self.inodes += 1;
        let length = u32::try_from(data.len()).map_err(io::Error::other)?;
        let (major, minor) = device;
        let mut head = b"070701".to_vec();
        // Inode, mode, uid, gid, links, mtime, size, device of the file system (2), of the file
        // (2), length of the name, checksum.
        for field in [self.inodes, mode, 0, 0, 1, 0, length, 0, 0, major, minor] {
            write!(head, "{field:08x}")?;
        }
        write!(head, "{:08x}{:08x}", name.len() + 1, 0)?;
        head.extend(name.bytes());
        head.push(0);
        self.padded(&head)?;
        self.padded(data)
    }

    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        let padding = bytes.len().next_multiple_of(4) - bytes.len();
        self.out.write_all(&[0; 3][..padding])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_padded_to_words() {
        let mut bytes = vec![];
        let mut archive = Initramfs::new(&mut bytes).unwrap();
        archive.file("etc/job", b"12345").unwrap();
        archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let at = text.find("etc/job\0").unwrap();
        // 110 bytes of header and 8 of name are 118, so two of padding precede the content.
        assert_eq!(&text[at..at + 15], "etc/job\0\0\x0012345");
        assert!(text.contains("TRAILER!!!\0"));
    }

    #[test]
    fn a_folder_precedes_its_files_and_is_written_once() {
        let folder = std::env::temp_dir().join(format!("initramfs-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut bytes = vec![];
        let mut archive = Initramfs::new(&mut bytes).unwrap();
        for name in ["one", "two"] {
            fs::write(folder.join(name), name).unwrap();
            let file = folder.join(name);
            archive.copy_with_folder(&file, &file).unwrap();
        }
        archive.finish().unwrap();
        fs::remove_dir_all(&folder).unwrap();

        let text = String::from_utf8_lossy(&bytes);
        let entry = |path: &Path| format!("{}\0", path.strip_prefix("/").unwrap().display());
        assert_eq!(text.matches(&entry(&folder)).count(), 1);
        let of = |path: &Path| text.find(&entry(path)).expect("an entry");
        assert!(of(&folder) < of(&folder.join("one")));
        assert!(of(&folder) < of(&folder.join("two")));
    }
}
