//! The symbols and the debug information of an ELF file.
//!
//! The needed sections are read into memory and not mapped, because a process may truncate a file
//! that it maps. Access to the missing part of a mapping would end the tracer (SIGBUS).

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use addr2line::Context;
use gimli::{Dwarf, EndianRcSlice, RunTimeEndian, SectionId};
use object::read::elf::ElfFile64;
use object::{CompressionFormat, Endianness, Object, ObjectSection, ObjectSegment, ReadCache, elf};

use super::regular;
use crate::fields::Frame;

/// Upper bound on the size of a file that is read, in bytes.
pub const FILE_BYTES: u64 = 4 << 30;

/// Upper bound on the debug information of a file, and on its symbol table, in bytes. Larger ones
/// are not used.
const DEBUG_BYTES: u64 = 512 << 20;
const SYMBOL_BYTES: u64 = 128 << 20;

/// Upper bound on the bytes of a function's name. Longer names are cut.
const NAME_BYTES: usize = 512;

/// Upper bound on the functions at one address that the compiler inlined into each other.
const INLINED: usize = 32;

/// Directory of separate debug information, by build id.
const DEBUG: &str = "/usr/lib/debug/.build-id";

type Slice = EndianRcSlice<RunTimeEndian>;
type Elf<'data> = ElfFile64<'data, Endianness, &'data ReadCache<File>>;

/// An ELF file of 64 bits.
#[derive(Default)]
pub struct Image {
    /// The loaded parts of the file: offset, size, and address in the file.
    segments: Vec<(u64, u64, u64)>,
    symbols: Symbols,
    debug: Option<Context<Slice>>,
    bytes: u64,
}

impl Image {
    /// Reads a file. An image without symbols results from a file that is not ELF.
    pub fn read(file: File) -> Image {
        Image::read_with(file, Path::new(DEBUG)).unwrap_or_default()
    }

    pub(crate) fn read_with(file: File, debug: &Path) -> io::Result<Image> {
        let cache = ReadCache::new(file.try_clone()?);
        let elf = Elf::parse(&cache).map_err(io::Error::other)?;
        let segments = elf.segments().map(|it| {
            let (offset, size) = it.file_range();
            (offset, size, it.address())
        });
        let segments = segments.collect();
        let mut image = Image::of(&elf, &file);
        if image.debug.is_none()
            && let Some(other) = separate(&elf, debug)
        {
            // A file of debug information may contain no symbols, or more of them.
            image.debug = other.debug;
            if !other.symbols.all.is_empty() {
                image.symbols = other.symbols;
            }
            image.bytes += other.bytes;
        }
        image.segments = segments;
        Ok(image)
    }

    /// Reads the symbols and the debug information, without segments.
    fn of(elf: &Elf<'_>, file: &File) -> Image {
        let mut bytes = 0;
        let symbols = ["tab", "dyn"].iter().find_map(|kind| {
            let (table, names) = match *kind {
                "tab" => (".symtab", ".strtab"),
                _ => (".dynsym", ".dynstr"),
            };
            let table = contents(elf, file, table, SYMBOL_BYTES).ok()?;
            let names = contents(elf, file, names, SYMBOL_BYTES).ok()?;
            let symbols = Symbols::new(&table, names, elf.endian());
            (!symbols.all.is_empty()).then_some(symbols)
        });
        let symbols = symbols.unwrap_or_default();
        bytes += symbols.bytes();
        let debug = debug(elf, file).map(|(debug, len)| {
            bytes += len;
            debug
        });
        Image {
            segments: Vec::new(),
            symbols,
            debug,
            bytes,
        }
    }

    /// Returns the memory that the image takes, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends the functions at an offset in the file, innermost first. `address` is the address in
    /// the process. Appends nothing if no function is known.
    pub fn frames(&self, offset: u64, address: u64, module: Option<&str>, frames: &mut Vec<Frame>) {
        let within = |(start, size, _): &&(u64, u64, u64)| {
            offset.checked_sub(*start).is_some_and(|rest| rest < *size)
        };
        let Some((start, _, virtual_address)) = self.segments.iter().find(within) else {
            return;
        };
        let probe = virtual_address.wrapping_add(offset - start);
        let first = frames.len();
        self.debug_frames(probe, address, module, frames);
        // The symbol table names the function that others may be inlined into.
        let symbol = || self.symbols.find(probe).map(name);
        match frames[first..].last_mut() {
            Some(outer) if outer.function.is_none() => outer.function = symbol(),
            Some(_) => {}
            None => frames.extend(symbol().map(|function| Frame {
                address,
                function: Some(function),
                module: module.map(str::to_owned),
                ..Frame::default()
            })),
        }
        for frame in frames[first..].iter_mut().rev().skip(1) {
            frame.inlined = true;
        }
        // A source line without a function is not an answer.
        if frames[first..].iter().all(|it| it.function.is_none()) {
            frames.truncate(first);
        }
    }

    fn debug_frames(
        &self,
        probe: u64,
        address: u64,
        module: Option<&str>,
        frames: &mut Vec<Frame>,
    ) {
        let Some(debug) = &self.debug else { return };
        // Split debug information (.dwo) is not read.
        let Ok(mut found) = debug.find_frames(probe).skip_all_loads() else {
            return;
        };
        for _ in 0..INLINED {
            let Ok(Some(frame)) = found.next() else { break };
            let function = frame.function.as_ref();
            let function = function.and_then(|it| it.demangle().ok().map(cut));
            let location = frame.location.as_ref();
            frames.push(Frame {
                address,
                function,
                module: module.map(str::to_owned),
                file: location.and_then(|it| it.file).map(|it| cut(it.into())),
                line: location.and_then(|it| it.line),
                inlined: false,
            });
        }
    }
}

/// Returns a symbol's name without mangling.
fn name(symbol: &str) -> String {
    cut(addr2line::demangle_auto(symbol.into(), None))
}

fn cut(name: Cow<'_, str>) -> String {
    match name.len() > NAME_BYTES {
        true => format!("{}…", &name[..name.floor_char_boundary(NAME_BYTES)]),
        false => name.into_owned(),
    }
}

/// Reads the debug information of the same build from the system's directory.
fn separate(elf: &Elf<'_>, folder: &Path) -> Option<Image> {
    let id = elf.build_id().ok()??;
    let (first, rest) = id.split_first()?;
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|it| format!("{it:02x}")).collect() };
    if rest.is_empty() || rest.len() > 64 {
        return None;
    }
    let mut path = PathBuf::from(folder);
    path.push(hex(&[*first]));
    path.push(format!("{}.debug", hex(rest)));
    let (file, _) = regular::open(&path, FILE_BYTES).ok()?;
    let cache = ReadCache::new(file.try_clone().ok()?);
    let separate = Elf::parse(&cache).ok()?;
    (separate.build_id().ok()? == Some(id)).then(|| Image::of(&separate, &file))
}

/// Prepares the debug information. Returns it with its size in bytes.
fn debug(elf: &Elf<'_>, file: &File) -> Option<(Context<Slice>, u64)> {
    let endian = match elf.endian() {
        Endianness::Little => RunTimeEndian::Little,
        Endianness::Big => RunTimeEndian::Big,
    };
    let mut left = DEBUG_BYTES;
    let section = |id: SectionId| -> io::Result<Slice> {
        let bytes = match needed(id) {
            true => contents(elf, file, id.name(), left).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(Vec::new()),
                _ => Err(error),
            })?,
            false => Vec::new(),
        };
        left -= bytes.len() as u64;
        Ok(EndianRcSlice::new(Rc::from(bytes), endian))
    };
    let sections = Dwarf::load(section).ok()?;
    let has_units = left < DEBUG_BYTES && !elf.section_by_name(".debug_info")?.size().eq(&0);
    let context = has_units.then(|| Context::from_dwarf(sections).ok())??;
    Some((context, DEBUG_BYTES - left))
}

/// Returns whether the search of functions and lines reads the section.
fn needed(id: SectionId) -> bool {
    use SectionId as It;
    matches!(
        id,
        It::DebugAbbrev
            | It::DebugAddr
            | It::DebugAranges
            | It::DebugInfo
            | It::DebugLine
            | It::DebugLineStr
            | It::DebugRanges
            | It::DebugRngLists
            | It::DebugStr
            | It::DebugStrOffsets
    )
}

/// Reads a section of at most `most` bytes and decompresses it.
fn contents(elf: &Elf<'_>, file: &File, name: &str, most: u64) -> io::Result<Vec<u8>> {
    let section = elf.section_by_name(name).ok_or(io::ErrorKind::NotFound)?;
    let range = section.compressed_file_range().map_err(io::Error::other)?;
    let in_file = range.offset.checked_add(range.compressed_size);
    if in_file.is_none_or(|end| end > file.metadata().map_or(0, |it| it.len()))
        || range.uncompressed_size.max(range.compressed_size) > most
    {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; range.compressed_size as usize];
    file.read_exact_at(&mut bytes, range.offset)?;
    let mut plain = Vec::new();
    let size = range.uncompressed_size;
    match range.format {
        CompressionFormat::None => return Ok(bytes),
        CompressionFormat::Zlib => flate2::read::ZlibDecoder::new(&bytes[..])
            .take(size)
            .read_to_end(&mut plain)?,
        CompressionFormat::Zstandard => zstd::stream::read::Decoder::new(&bytes[..])?
            .take(size)
            .read_to_end(&mut plain)?,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    Ok(plain)
}

/// The functions of a symbol table.
#[derive(Default)]
struct Symbols {
    /// Functions by address: start, end, and offset of the name.
    all: Vec<(u64, u64, u32)>,
    /// The names, each with a zero behind it.
    names: Vec<u8>,
}

impl Symbols {
    fn new(table: &[u8], names: Vec<u8>, endian: Endianness) -> Symbols {
        let count = table.len() / size_of::<elf::Sym64<Endianness>>();
        let Ok((table, _)) = object::pod::slice_from_bytes::<elf::Sym64<Endianness>>(table, count)
        else {
            return Symbols::default();
        };
        let function = |symbol: &elf::Sym64<Endianness>| {
            let is_function = matches!(symbol.st_info & 0xf, elf::STT_FUNC | elf::STT_GNU_IFUNC);
            let start = symbol.st_value.get(endian);
            let end = start.checked_add(symbol.st_size.get(endian).max(1))?;
            let is_defined = symbol.st_shndx.get(endian) != elf::SHN_UNDEF;
            (is_function && is_defined).then(|| (start, end, symbol.st_name.get(endian)))
        };
        let mut all: Vec<_> = table.iter().filter_map(function).collect();
        all.sort_unstable();
        // Aliases have the same address. The largest one stays.
        let mut seen = HashSet::new();
        all.reverse();
        all.retain(|(start, ..)| seen.insert(*start));
        all.reverse();
        Symbols { all, names }
    }

    fn bytes(&self) -> u64 {
        let all = self.all.len() * size_of::<(u64, u64, u32)>();
        (all + self.names.len()) as u64
    }

    fn find(&self, address: u64) -> Option<&str> {
        let after = self.all.partition_point(|(start, ..)| *start <= address);
        let (_, end, name) = self.all.get(after.checked_sub(1)?)?;
        let name = self.names.get(*name as usize..)?;
        let len = name.iter().position(|byte| *byte == 0)?;
        let name = std::str::from_utf8(&name[..len]).ok()?;
        (address < *end && !name.is_empty()).then_some(name)
    }
}
