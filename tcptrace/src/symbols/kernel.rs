//! Names of kernel functions, from `/proc/kallsyms` (kernel/kallsyms.c).

use std::fs::File;
use std::io::{BufRead, BufReader};

const FILE: &str = "/proc/kallsyms";

/// Upper bound on the distance between an address and the start of its function, because the file
/// has no sizes.
const MOST: u64 = 1 << 20;

/// The kernel's functions by address.
#[derive(Default)]
pub struct Kernel {
    /// Address of each function, and the end of its name in `names`.
    functions: Vec<(u64, u32)>,
    /// All names, one after another.
    names: String,
}

impl Kernel {
    /// Reads the functions of this kernel. Returns none if they are hidden.
    pub fn read() -> Kernel {
        match File::open(FILE) {
            Ok(file) => Kernel::parse(BufReader::new(file)),
            Err(_) => Kernel::default(),
        }
    }

    pub(crate) fn parse(mut reader: impl BufRead) -> Kernel {
        let mut found: Vec<(u64, String)> = Vec::new();
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|len| len > 0) {
            found.extend(function(&line).map(|(address, name)| (address, name.to_owned())));
            line.clear();
        }
        found.sort_by_key(|(address, _)| *address);
        // Aliases have the same address. The first one stays.
        found.dedup_by_key(|(address, _)| *address);
        let mut kernel = Kernel::default();
        for (address, name) in found {
            kernel.names.push_str(&name);
            kernel.functions.push((address, kernel.names.len() as u32));
        }
        kernel
    }

    /// Returns the function that contains the address.
    pub fn find(&self, address: u64) -> Option<&str> {
        let after = self
            .functions
            .partition_point(|(start, _)| *start <= address);
        let index = after.checked_sub(1)?;
        let (start, end) = self.functions[index];
        let begin = index.checked_sub(1).map_or(0, |it| self.functions[it].1);
        let name = &self.names[begin as usize..end as usize];
        (address - start < MOST).then_some(name)
    }
}

/// Parses a line such as `ffffffff81000000 T tcp_accept\t[module]`. Returns `None` if it is not a
/// function or its address is hidden.
fn function(line: &str) -> Option<(u64, &str)> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let is_code = matches!(words.next()?, "t" | "T" | "w" | "W");
    let name = words.next()?;
    // The compiler appends suffixes such as `.isra.0` and `.llvm.123` to names of the source.
    let name = name.split('.').next().unwrap_or(name);
    (is_code && address != 0 && !name.is_empty()).then_some((address, name))
}

/// Returns whether the kernel hides the addresses of its functions from this process, by
/// `kernel.kptr_restrict` or because CAP_SYSLOG is missing, or has no `/proc/kallsyms`.
pub fn is_hidden() -> bool {
    let Ok(file) = File::open(FILE) else {
        return true;
    };
    // The file begins with per-CPU variables, whose addresses may be small.
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    !lines.take(100_000).any(|line| function(&line).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMBOLS: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000200 t io_schedule.isra.0
ffffffff81000100 T schedule
ffffffff81000100 T schedule_alias
ffffffff81000180 D data
ffffffffc0000000 t ext4_sync_file\t[ext4]
";

    #[test]
    fn an_address_belongs_to_the_function_before_it() {
        let kernel = Kernel::parse(SYMBOLS.as_bytes());
        assert_eq!(kernel.find(0xffff_ffff_8100_00ff), None);
        assert_eq!(kernel.find(0xffff_ffff_8100_0100), Some("schedule"));
        assert_eq!(kernel.find(0xffff_ffff_8100_01ff), Some("schedule"));
        assert_eq!(kernel.find(0xffff_ffff_8100_0200), Some("io_schedule"));
        assert_eq!(kernel.find(0xffff_ffff_9100_0000), None);
        assert_eq!(kernel.find(0xffff_ffff_c000_0010), Some("ext4_sync_file"));
    }

    #[test]
    fn hidden_addresses_give_no_function() {
        let hidden = "0000000000000000 T schedule\n0000000000000000 t io_schedule\n";
        let kernel = Kernel::parse(hidden.as_bytes());
        assert_eq!(kernel.find(0), None);
        assert_eq!(kernel.find(0xffff_ffff_8100_0100), None);
    }
}
