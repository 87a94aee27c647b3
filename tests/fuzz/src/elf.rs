//! ELF files of traced programs: symbols and debug information, compressed or not.

use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;

use tcptrace::fuzzing;

/// Upper bound on the frames of one address, see `INLINED` in `symbols/image.rs`.
const FRAMES: usize = 33;

/// The first eight bytes are offsets to look up, the rest is the file.
pub fn run(data: &[u8]) {
    let Some((offsets, file)) = data.split_first_chunk::<8>() else {
        return;
    };
    let offsets = offsets.map(|it| u64::from(it) * 16);
    let Some(file) = memory_file(file) else {
        return;
    };
    let frames = fuzzing::elf(file, offsets);
    assert!(frames.len() <= FRAMES * offsets.len());
    for frame in frames {
        let texts = [&frame.function, &frame.file];
        assert!(texts.into_iter().flatten().all(|it| it.len() <= 515));
    }
}

/// Makes a file in memory, as the code under test reads files.
fn memory_file(contents: &[u8]) -> Option<File> {
    // SAFETY: the name ends with a zero.
    let fd = unsafe { libc::memfd_create(c"elf".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return None;
    }
    // SAFETY: the descriptor is new, and nothing else owns it.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(contents).ok()?;
    Some(file)
}
