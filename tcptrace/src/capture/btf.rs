//! A reader of structure offsets from kernel BTF.
//!
//! aya's own reader is private, and other crates build the whole type graph first. This reader only
//! indexes the start of each type, which takes a few milliseconds, and follows members by name.
//!
//! Format: <https://docs.kernel.org/bpf/btf.html>

mod enumeration;
mod prototype;

use std::path::Path;

use rustc_hash::FxHashMap;
use thiserror::Error;

/// The file with the kernel's BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: usize = 24;

/// Kinds of types, `BTF_KIND_*` of include/uapi/linux/btf.h.
mod kind {
    pub const INT: u32 = 1;
    pub const PTR: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FWD: u32 = 7;
    pub const TYPEDEF: u32 = 8;
    pub const VOLATILE: u32 = 9;
    pub const CONST: u32 = 10;
    pub const RESTRICT: u32 = 11;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const FLOAT: u32 = 16;
    pub const DECL_TAG: u32 = 17;
    pub const TYPE_TAG: u32 = 18;
    pub const ENUM64: u32 = 19;
}

#[derive(Debug, Error)]
pub enum BtfError {
    #[error("{0}: {1}")]
    Read(String, #[source] std::io::Error),
    #[error("not BTF, or cut short")]
    Malformed,
    #[error("BTF type kind {0} is newer than tcptrace")]
    UnknownKind(u32),
    #[error("this kernel has no struct {0}")]
    NoStruct(String),
    #[error("this kernel's struct {0} has no member {1}")]
    NoMember(String, String),
    #[error("this kernel has no function {0}")]
    NoFunction(String),
    #[error("{0} is a bit field")]
    BitField(String),
}

/// A BTF blob with the start of each of its types.
pub struct Btf {
    data: Vec<u8>,
    /// Offset of each type in `data`, by type id. Id 0 is void.
    types: Vec<usize>,
    /// Ids of structures by name: an index, because about a hundred members are looked up among ten
    /// thousand structures.
    structs: FxHashMap<Vec<u8>, u32>,
    strings: std::ops::Range<usize>,
}

/// A member on the path to an offset.
struct Member {
    bit_offset: u32,
    is_bit_field: bool,
    type_id: u32,
}

impl Btf {
    /// Reads a BTF file such as [`VMLINUX`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Btf, BtfError> {
        let path = path.as_ref();
        let data = std::fs::read(path)
            .map_err(|error| BtfError::Read(path.display().to_string(), error))?;
        Btf::parse(data)
    }

    /// Indexes a BTF blob.
    pub fn parse(data: Vec<u8>) -> Result<Btf, BtfError> {
        if data.len() < HEADER_LEN || data[..2] != MAGIC.to_ne_bytes() {
            return Err(BtfError::Malformed);
        }
        let header = |at| word(&data, at).map(|word| word as usize);
        let body = header(4)?;
        let section = |offset, len| -> Result<_, BtfError> {
            let start = body
                .checked_add(header(offset)?)
                .ok_or(BtfError::Malformed)?;
            let end = start.checked_add(header(len)?).ok_or(BtfError::Malformed)?;
            if end > data.len() {
                return Err(BtfError::Malformed);
            }
            Ok(start..end)
        };
        let (type_section, strings) = (section(8, 12)?, section(16, 20)?);

        let mut types = vec![0];
        let mut structs = FxHashMap::default();
        let mut at = type_section.start;
        while at < type_section.end {
            let info = word(&data, at + 4)?;
            if kind_of(info) == kind::STRUCT {
                let name = name(&data[strings.clone()], word(&data, at)?);
                // The first of several structures with the same name counts.
                structs.entry(name.to_vec()).or_insert(types.len() as u32);
            }
            types.push(at);
            at += type_len(info)?;
        }
        Ok(Btf {
            data,
            types,
            structs,
            strings,
        })
    }

    /// Returns a smaller blob for aya, which needs only the names of functions and typedefs to
    /// attach programs. All other types are replaced by nameless types without members, so that
    /// type ids stay valid. aya takes at least 72 bytes of memory for each type, and more for its
    /// members.
    pub fn names(&self) -> Vec<u8> {
        let len = 12 * (self.types.len() - 1);
        let strings = &self.data[self.strings.clone()];
        let mut blob = self.data[..4].to_vec();
        for word in [HEADER_LEN, 0, len, len, strings.len()] {
            blob.extend((word as u32).to_ne_bytes());
        }
        let nameless = [0, kind::FWD << 24, 0].map(u32::to_ne_bytes);
        for &at in &self.types[1..] {
            let of_type = self.data.get(at..at + 12).unwrap_or_default();
            match word(of_type, 4).map(kind_of) {
                Ok(kind::FUNC | kind::TYPEDEF) => blob.extend(of_type),
                _ => blob.extend(nameless.as_flattened()),
            }
        }
        blob.extend(strings);
        blob
    }

    /// Returns the offset of a member in bytes, by a path such as `sock.__sk_common.skc_family`.
    /// Members of anonymous structs and unions belong to the enclosing struct.
    pub fn offset(&self, path: &str) -> Result<u32, BtfError> {
        match self.place(path)? {
            (_, true) => Err(BtfError::BitField(path.into())),
            (bits, false) => Ok(bits / 8),
        }
    }

    /// Returns the offset of a bit field in bits, by its path.
    pub fn bit(&self, path: &str) -> Result<u32, BtfError> {
        self.place(path).map(|(bits, _)| bits)
    }

    /// Returns the offset of a member in bits, and whether it is a bit field.
    fn place(&self, path: &str) -> Result<(u32, bool), BtfError> {
        let (root, members) = path.split_once('.').unwrap_or((path, ""));
        let mut type_id = self
            .structure(root)
            .ok_or_else(|| BtfError::NoStruct(root.into()))?;
        let mut bits = 0;
        let mut is_bit_field = false;
        for name in members.split('.') {
            let member = self
                .member(self.resolve(type_id)?, name, &mut Search::default())?
                .ok_or_else(|| BtfError::NoMember(root.into(), members.into()))?;
            is_bit_field = member.is_bit_field;
            bits = sum(bits, member.bit_offset)?;
            type_id = member.type_id;
        }
        Ok((bits, is_bit_field))
    }

    /// Returns a function's number of parameters; `None` if the kernel has no such function.
    pub fn parameters(&self, function: &str) -> Option<usize> {
        let function = self.type_at(self.find(function, kind::FUNC)?).ok()?;
        let prototype = self.type_at(self.word(function + 8).ok()?).ok()?;
        Some(vlen(self.word(prototype + 4).ok()?))
    }

    /// Returns a tracepoint's number of arguments; `None` if there is no such tracepoint. Its type
    /// is `btf_trace_NAME`, a pointer to a function with one additional parameter.
    pub fn tracepoint_arguments(&self, tracepoint: &str) -> Option<usize> {
        let name = format!("btf_trace_{tracepoint}");
        let pointer = self.type_at(self.find(&name, kind::TYPEDEF)?).ok()?;
        let function = self.type_at(self.word(pointer + 8).ok()?).ok()?;
        let prototype = self.type_at(self.word(function + 8).ok()?).ok()?;
        let is_function = kind_of(self.word(prototype + 4).ok()?) == kind::FUNC_PROTO;
        let parameters = vlen(self.word(prototype + 4).ok()?);
        is_function.then(|| parameters.saturating_sub(1))
    }

    fn word(&self, at: usize) -> Result<u32, BtfError> {
        word(&self.data, at)
    }

    fn type_at(&self, id: u32) -> Result<usize, BtfError> {
        match self.types.get(id as usize) {
            Some(&at) if id != 0 => Ok(at),
            _ => Err(BtfError::Malformed),
        }
    }

    fn kind(&self, id: u32) -> Result<u32, BtfError> {
        Ok(kind_of(self.word(self.type_at(id)? + 4)?))
    }

    fn name(&self, offset: u32) -> &[u8] {
        name(&self.data[self.strings.clone()], offset)
    }

    /// Returns true if the kernel has a structure of this name.
    pub fn has_struct(&self, name: &str) -> bool {
        self.structure(name).is_some()
    }

    fn structure(&self, name: &str) -> Option<u32> {
        self.structs.get(name.as_bytes()).copied()
    }

    /// Returns the id of a type by its name and its kind. The search is linear, because it is used
    /// only a few times; structures have an index.
    fn find(&self, name: &str, wanted: u32) -> Option<u32> {
        (1..self.types.len() as u32).find(|&id| {
            let at = self.types[id as usize];
            self.word(at + 4).is_ok_and(|info| kind_of(info) == wanted)
                && self
                    .word(at)
                    .is_ok_and(|offset| self.name(offset) == name.as_bytes())
        })
    }

    /// Follows typedefs and qualifiers to the underlying type.
    fn resolve(&self, mut id: u32) -> Result<u32, BtfError> {
        // Real chains have only a few types. The limit stops a damaged chain that loops.
        for _ in 0..64 {
            match self.kind(id)? {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = self.word(self.type_at(id)? + 8)?
                }
                _ => return Ok(id),
            }
        }
        Err(BtfError::Malformed)
    }

    /// Finds a member of a type, or of the anonymous structures inside of it.
    fn member(
        &self,
        type_id: u32,
        name: &str,
        search: &mut Search,
    ) -> Result<Option<Member>, BtfError> {
        if !matches!(self.kind(type_id)?, kind::STRUCT | kind::UNION) {
            return Ok(None);
        }
        let at = self.type_at(type_id)?;
        let info = self.word(at + 4)?;
        // With the kind flag, the upper byte of an offset is the size of a bit field.
        let has_bit_fields = info >> 31 != 0;
        for index in 0..vlen(info) {
            search.step()?;
            let member = at + 12 + 12 * index;
            let (name_offset, member_type) = (self.word(member)?, self.word(member + 4)?);
            let raw = self.word(member + 8)?;
            let (bit_offset, bit_size) = if has_bit_fields {
                (raw & 0x00ff_ffff, raw >> 24)
            } else {
                (raw, 0)
            };
            let member_name = self.name(name_offset);
            if member_name == name.as_bytes() {
                return Ok(Some(Member {
                    bit_offset,
                    is_bit_field: bit_size != 0,
                    type_id: member_type,
                }));
            }
            if member_name.is_empty() {
                search.enter()?;
                if let Some(inner) = self.member(self.resolve(member_type)?, name, search)? {
                    return Ok(Some(Member {
                        bit_offset: sum(bit_offset, inner.bit_offset)?,
                        ..inner
                    }));
                }
                search.depth -= 1;
            }
        }
        Ok(None)
    }
}

/// The bounds of one search for a member. A damaged structure may contain itself, directly or many times.
#[derive(Default)]
struct Search {
    /// Number of members that were compared.
    members: u32,
    /// Number of anonymous structures around the current one.
    depth: u32,
}

impl Search {
    /// A hundred times the members of the kernel's largest structure.
    const MEMBERS: u32 = 65_536;
    /// Real structures nest a few levels deep.
    const DEPTH: u32 = 32;

    fn step(&mut self) -> Result<(), BtfError> {
        self.members += 1;
        (self.members <= Search::MEMBERS)
            .then_some(())
            .ok_or(BtfError::Malformed)
    }

    fn enter(&mut self) -> Result<(), BtfError> {
        self.depth += 1;
        (self.depth <= Search::DEPTH)
            .then_some(())
            .ok_or(BtfError::Malformed)
    }
}

fn sum(bits: u32, more: u32) -> Result<u32, BtfError> {
    bits.checked_add(more).ok_or(BtfError::Malformed)
}

/// Returns the string at an offset of the string section.
fn name(strings: &[u8], offset: u32) -> &[u8] {
    let tail = strings.get(offset as usize..).unwrap_or_default();
    let end = tail.iter().position(|&byte| byte == 0);
    &tail[..end.unwrap_or(tail.len())]
}

fn word(data: &[u8], at: usize) -> Result<u32, BtfError> {
    data.get(at..)
        .and_then(|tail| tail.first_chunk())
        .map(|bytes| u32::from_ne_bytes(*bytes))
        .ok_or(BtfError::Malformed)
}

fn kind_of(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

fn vlen(info: u32) -> usize {
    (info & 0xffff) as usize
}

/// Returns the length of a type's record in bytes: twelve for `struct btf_type`, and an amount that
/// depends on the kind.
fn type_len(info: u32) -> Result<usize, BtfError> {
    let extra = match kind_of(info) {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::PTR
        | kind::FWD
        | kind::TYPEDEF
        | kind::VOLATILE
        | kind::CONST
        | kind::RESTRICT
        | kind::FUNC
        | kind::FLOAT
        | kind::TYPE_TAG => 0,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * vlen(info),
        kind::ENUM | kind::FUNC_PROTO => 8 * vlen(info),
        other => return Err(BtfError::UnknownKind(other)),
    };
    Ok(12 + extra)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a blob with `struct outer { int a; struct { struct inner in; }; int bits:3; }` and
    /// `struct inner { int x; typedef'd int y; }`.
    fn blob() -> Vec<u8> {
        let mut strings = vec![0u8];
        let mut name = |name: &str| {
            let offset = strings.len() as u32;
            strings.extend_from_slice(name.as_bytes());
            strings.push(0);
            offset
        };
        let (int, alias, inner, outer) = (name("int"), name("alias"), name("inner"), name("outer"));
        let (x, y, a, within, bits) = (name("x"), name("y"), name("a"), name("in"), name("bits"));
        let info = |kind: u32, vlen: u32, flag: u32| flag << 31 | kind << 24 | vlen;
        #[rustfmt::skip]
        let types: Vec<u32> = vec![
            int, info(kind::INT, 0, 0), 4, 0x0100_0020,          // 1
            alias, info(kind::TYPEDEF, 0, 0), 1,                 // 2
            inner, info(kind::STRUCT, 2, 0), 8,                  // 3
                x, 1, 0,  y, 2, 32,
            0, info(kind::STRUCT, 1, 0), 8,                      // 4
                within, 3, 0,
            outer, info(kind::STRUCT, 3, 1), 16,                 // 5
                a, 1, 0,  0, 4, 32,  bits, 1, 3 << 24 | 96,
        ];
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut blob = MAGIC.to_ne_bytes().to_vec();
        blob.extend([1, 0]);
        for word in [24, 0, types.len(), types.len(), strings.len()] {
            blob.extend((word as u32).to_ne_bytes());
        }
        blob.extend(types);
        blob.extend(strings);
        blob
    }

    #[test]
    fn a_path_leads_through_anonymous_members_and_typedefs() {
        let btf = Btf::parse(blob()).unwrap();
        assert_eq!(btf.offset("outer.a").unwrap(), 0);
        assert_eq!(btf.offset("outer.in.y").unwrap(), 8);
        assert_eq!(btf.offset("inner.y").unwrap(), 4);
    }

    #[test]
    fn the_blob_of_names_keeps_functions_and_typedefs_and_all_type_ids() {
        let names = Btf::parse(blob()).unwrap().names();
        let btf = Btf::parse(names.clone()).unwrap();
        assert_eq!(btf.types.len(), 6);
        assert_eq!(btf.find("alias", kind::TYPEDEF), Some(2));
        assert!((1..6).all(|id| id == 2 || btf.kind(id).is_ok_and(|it| it == kind::FWD)));
        assert!(aya::Btf::parse(&names, aya::Endianness::default()).is_ok());
    }

    #[test]
    fn a_missing_struct_or_member_is_named_in_the_error() {
        let btf = Btf::parse(blob()).unwrap();
        let error = |path| btf.offset(path).unwrap_err().to_string();
        assert_eq!(error("nosuch.a"), "this kernel has no struct nosuch");
        assert_eq!(
            error("outer.z"),
            "this kernel's struct outer has no member z"
        );
        assert_eq!(error("outer.bits"), "outer.bits is a bit field");
        assert_eq!(btf.bit("outer.bits").unwrap(), 96);
    }

    #[test]
    fn a_truncated_or_garbled_blob_causes_no_panic() {
        let whole = blob();
        for len in 0..whole.len() {
            assert!(Btf::parse(whole[..len].to_vec()).is_err(), "{len}");
        }
        for at in 0..whole.len() {
            let mut garbled = whole.clone();
            garbled[at] ^= 0xff;
            if let Ok(btf) = Btf::parse(garbled) {
                let _ = btf.offset("outer.in.y");
            }
        }
    }
}
