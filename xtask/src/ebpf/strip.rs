//! Strips the object's debug information: five sixths of its size, which neither the kernel nor the
//! loader reads. BTF, maps and relocations stay.
//!
//! GNU strip refuses eBPF objects, and llvm-strip would be another tool to install.

use anyhow::Result;
use object::{
    build::elf::{Builder, SectionData},
    elf,
};

pub fn debug_info(object: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(object)?;
    let mut deleted = Vec::new();
    for section in &mut elf.sections {
        let name = section.name.to_string();
        if name.starts_with(".debug_") || name.starts_with(".rel.debug_") {
            section.delete = true;
            deleted.push(section.id());
        }
    }
    for symbol in &mut elf.symbols {
        symbol.delete = symbol.section.is_some_and(|id| deleted.contains(&id));
    }
    elf.delete_orphans();

    // LLVM stores section names in .strtab; the writer requires a separate table for them.
    let names = elf.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = elf::SHT_STRTAB;
    names.data = SectionData::SectionString;

    let mut stripped = Vec::new();
    elf.write(&mut stripped)?;
    Ok(stripped)
}
