//! Field offsets of a classic tracepoint, read from its `format` file.

use std::path::Path;

/// The mount point of tracefs, and its place in debugfs on older systems.
const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The content of a tracepoint's `format` file.
pub struct Format(pub(crate) String);

impl Format {
    /// Reads the file. Returns `None` if tracefs is not mounted or not readable, or has no such
    /// tracepoint.
    pub fn read(category: &str, name: &str) -> Option<Format> {
        MOUNTS.iter().find_map(|mount| {
            let file = Path::new(mount).join(format!("events/{category}/{name}/format"));
            std::fs::read_to_string(file).ok().map(Format)
        })
    }

    /// Returns the offset of a field in bytes, from a line such as (with tabs between the parts)
    /// `field:const void * skaddr; offset:8; size:8; signed:0;`.
    pub fn offset(&self, field: &str) -> Option<u32> {
        self.0.lines().find_map(|line| {
            let mut parts = line.trim().split(';').map(str::trim);
            let declared = parts.next()?.strip_prefix("field:")?;
            // The name is the last word. The length of an array may follow it.
            let name = declared.split_whitespace().next_back()?.split('[').next()?;
            if name != field {
                return None;
            }
            parts.find_map(|part| part.strip_prefix("offset:")?.parse().ok())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_offsets_are_found_by_name() {
        let format = Format(
            "name: inet_sock_set_state\nID: 2287\nformat:\n\
             \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
             \tfield:const void * skaddr;\toffset:16;\tsize:8;\tsigned:0;\n\
             \tfield:int oldstate;\toffset:24;\tsize:4;\tsigned:1;\n\
             \tfield:__u8 saddr[4];\toffset:40;\tsize:4;\tsigned:0;\n\n\
             print fmt: \"oldstate=%s\", REC->oldstate\n"
                .into(),
        );
        assert_eq!(format.offset("skaddr"), Some(16));
        assert_eq!(format.offset("oldstate"), Some(24));
        assert_eq!(format.offset("saddr"), Some(40));
        assert_eq!(format.offset("addr"), None);
    }
}
