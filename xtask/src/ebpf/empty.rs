//! Replaces the object's programs: each returns 0 at its first instruction. Their remaining cost is
//! the kernel's cost of calling them.

use anyhow::{Result, ensure};
use object::{
    Endianness,
    build::{
        ByteString,
        elf::{Builder, SectionData, SectionId},
    },
    elf,
};

/// The instructions `r0 = 0; exit`.
const RETURN_0: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// Returns the object with empty programs at the same hooks, and with the same maps.
///
/// # Errors
/// If the input is no eBPF object.
pub fn programs(object: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(object)?;
    ensure!(
        elf.header.e_machine == elf::EM_BPF && elf.endian == Endianness::Little,
        "no little-endian eBPF object"
    );
    let code: Vec<SectionId> = elf
        .sections
        .iter()
        .filter(|section| section.sh_flags & u64::from(elf::SHF_EXECINSTR) != 0)
        .map(|section| section.id())
        .collect();
    for &id in &code {
        let mut at = 0;
        for symbol in &mut elf.symbols {
            if symbol.section == Some(id) && symbol.st_type() == elf::STT_FUNC {
                symbol.st_value = at;
                symbol.st_size = RETURN_0.len() as u64;
                at += symbol.st_size;
            }
        }
        let functions = at as usize / RETURN_0.len();
        elf.sections.get_mut(id).data = SectionData::Data(RETURN_0.repeat(functions).into());
    }
    for section in &mut elf.sections {
        // Relocations and line information of the removed instructions.
        let is_about_code = section.sh_info_section.is_some_and(|id| code.contains(&id));
        let is_debug = section.name == ByteString::from(".BTF.ext")
            || section.name == ByteString::from(".rel.BTF.ext");
        section.delete = is_about_code || is_debug;
    }
    elf.delete_orphans();
    let mut empty = Vec::new();
    elf.write(&mut empty)?;
    Ok(empty)
}

#[cfg(test)]
mod tests {
    use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind};

    use super::*;

    #[test]
    fn every_program_returns_at_once_and_keeps_its_name() {
        let whole = include_bytes!("../../../tcptrace/ebpf/tcptrace.bpf.o");
        let empty = programs(whole).unwrap();
        let (whole, empty) = (
            object::File::parse(&whole[..]).unwrap(),
            object::File::parse(&empty[..]).unwrap(),
        );
        let names = |file: &object::File<'_>| -> Vec<String> {
            let symbols = file.symbols();
            let functions = symbols.filter(|symbol| symbol.kind() == SymbolKind::Text);
            functions.map(|it| it.name().unwrap().to_owned()).collect()
        };
        assert!(names(&whole).len() > 20, "{:?}", names(&whole));
        assert_eq!(names(&whole), names(&empty));
        for section in empty.sections() {
            if section.kind() == SectionKind::Text {
                let mut programs = section.data().unwrap().chunks(RETURN_0.len());
                assert!(programs.all(|it| it == RETURN_0), "{:?}", section.name());
                assert_eq!(section.relocations().count(), 0, "{:?}", section.name());
            }
        }
    }
}
