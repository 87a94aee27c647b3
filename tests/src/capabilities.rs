//! File capabilities.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Sets only CAP_BPF and CAP_PERFMON, effective: `setcap cap_bpf,cap_perfmon+ep`, see
/// include/uapi/linux/capability.h.
///
/// # Errors
/// If the file system does not support extended attributes.
pub fn give_bpf_and_perfmon(path: &Path) -> io::Result<()> {
    const NAME: &CStr = c"security.capability";
    const REVISION_2_EFFECTIVE: u32 = 0x0200_0001;
    const PERFMON_AND_BPF: u32 = 0b11 << (38 - 32);
    let words = [REVISION_2_EFFECTIVE, 0, 0, PERFMON_AND_BPF, 0];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: names that end in NUL, and a value of the given length.
    let done = unsafe {
        libc::setxattr(
            path.as_ptr(),
            NAME.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
