//! Entry points of the fuzz targets (`tests/fuzz`) into parts that are private. Not an interface for
//! other programs.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;

use tcptrace_core::container::Container;

use crate::capture::{counters, tracefs};
use crate::cli::{self, Cli};
use crate::containers;
use crate::event::QueueCounters;
use crate::fields::Frame;
use crate::symbols::image::Image;
use crate::symbols::kernel::Kernel;
use crate::symbols::maps::{Maps, Status};
use crate::symbols::perf_map::PerfMap;

/// Parses arguments, the program's name first, with the text of a configuration file.
///
/// # Errors
/// The line that a user gets.
pub fn command_line(args: &[OsString], file: &str) -> Result<Cli, String> {
    cli::parse_with_file(args, file)
}

/// Reads an ELF file and looks up offsets in it.
pub fn elf(file: File, offsets: impl IntoIterator<Item = u64>) -> Vec<Frame> {
    let mut frames = vec![];
    if let Ok(image) = Image::read_with(file, Path::new("/nonexistent")) {
        for offset in offsets {
            image.frames(offset, offset, Some("module"), &mut frames);
        }
    }
    frames
}

/// Parses parts of a `perf-PID.map`, and looks up addresses.
pub fn perf_map(parts: [&[u8]; 2], addresses: &[u64]) -> Vec<String> {
    let mut map = PerfMap::default();
    let mut found = vec![];
    for part in parts {
        map.add(part);
        found.extend(
            addresses
                .iter()
                .filter_map(|it| map.find(*it))
                .map(str::to_owned),
        );
    }
    found
}

/// Parses `/proc/kallsyms`, and looks up an address.
pub fn kernel_symbol(text: &[u8], address: u64) -> Option<String> {
    Kernel::parse(text).find(address).map(str::to_owned)
}

/// Parses `/proc/PID/maps`, and returns the module at an address.
pub fn module(maps: &str, address: u64) -> Option<String> {
    let maps = Maps::parse(maps);
    let mapping = maps.find(address)?;
    assert!(mapping.start <= address && address < mapping.end);
    mapping.module().map(str::to_owned)
}

/// Parses `/proc/PID/status`: the effective user, and the process id in its own namespace.
pub fn status(text: &str) -> Option<(u32, u32)> {
    Status::parse(text).map(|it| (it.euid, it.own_pid))
}

/// Parses `/proc/net/netstat`.
pub fn queue_counters(text: &str) -> Option<QueueCounters> {
    counters::parse(text)
}

/// Parses the `format` file of a tracepoint, and returns the offset of a field.
pub fn field_offset(format: &str, field: &str) -> Option<u32> {
    tracefs::Format(format.to_owned()).offset(field)
}

/// Names a container by the contents of the runtimes' files: an OCI bundle's config.json, Docker's
/// config.v2.json, and containers.json of containers/storage.
pub fn container(id: &str, bundle: &[u8], docker: &[u8], list: &[u8]) -> Container {
    containers::from_contents(id, bundle, docker, list)
}
