//! Proves that the committed object comes from the source.
//!
//! The same tools make the same bytes in any folder, except for the order of types in BTF, so the
//! object is built again and compared. Other tools make other bytes. Then the recorded hash of the
//! sources must match, and the source must compile.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use object::build::elf::{Builder, SectionData};

use super::{
    build,
    buildinfo::{BuildInfo, Key},
    toolchain::Toolchain,
};

const REMEDY: &str = "run `cargo xtask ebpf build` and commit what it writes";

pub fn run(root: &Path) -> Result<()> {
    let path = build::object_path(root);
    let committed =
        fs::read(&path).with_context(|| format!("cannot read {}: {REMEDY}", path.display()))?;
    let recorded = BuildInfo::read(root).context(REMEDY)?;
    let toolchain = Toolchain::find(root)?;
    let rebuilt = build::stripped(root, &toolchain, "bpf")?;
    let found = compare(
        &recorded,
        &BuildInfo::new(root, &toolchain, &committed)?,
        without_order_of_btf(&rebuilt)? == without_order_of_btf(&committed)?,
    )?;
    println!("{found}");
    Ok(())
}

/// Returns the object without its section .BTF, the length of that section, and the strings in it, in
/// order. LLVM puts the forward declarations there in the order of their addresses in its memory
/// (`BTFDebug::FixupDerivedTypes` is a map by pointer), and these depend on the folder's name.
fn without_order_of_btf(object: &[u8]) -> Result<(Vec<u8>, usize, Vec<Vec<u8>>)> {
    let mut elf = Builder::read(object)?;
    let (mut len, mut strings) = (0, vec![]);
    for section in &mut elf.sections {
        if section.name.as_slice() == b".BTF"
            && let SectionData::Data(btf) = &mut section.data
        {
            len = btf.len();
            strings = btf_strings(btf)
                .context("no BTF")?
                .split(|&it| it == 0)
                .map(<[u8]>::to_vec)
                .collect();
            strings.sort_unstable();
            btf.to_mut().clear();
        }
    }
    let mut rest = Vec::new();
    elf.write(&mut rest)?;
    Ok((rest, len, strings))
}

/// Returns the string section of BTF: `hdr_len`, `str_off` and `str_len` of `struct btf_header`
/// (include/uapi/linux/btf.h).
fn btf_strings(btf: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| {
        let bytes = btf.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let begin = number(4)? + number(16)?;
    btf.get(begin..begin + number(20)?)
}

/// Compares `recorded`, the committed BUILDINFO, with `now`, made from the tools, the sources and
/// the committed object at hand. `same_bytes`: whether these tools build that object from these
/// sources.
fn compare(recorded: &BuildInfo, now: &BuildInfo, same_bytes: bool) -> Result<String> {
    let same = |key: Key| recorded.get(key) == now.get(key);
    ensure!(
        same(Key::Object),
        "tcptrace.bpf.o is not the object that its BUILDINFO describes: {REMEDY}"
    );
    ensure!(
        same(Key::Sources),
        "the eBPF object was built from other sources than these: {REMEDY}"
    );
    if let Some(tool) = Key::TOOLS.into_iter().find(|&tool| !same(tool)) {
        return Ok(format!(
            "The eBPF object was built from these sources by their recorded hash. Its bytes were \
             not compared: {tool} was {}, here it is {}.",
            recorded.get(tool),
            now.get(tool)
        ));
    }
    if !same_bytes {
        bail!("the eBPF object differs from what its source gives: {REMEDY}");
    }
    Ok(
        "The eBPF object is what its source gives: byte for byte, but for the order of types in .BTF."
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(rustc: &str, sources: &str, object: &str) -> BuildInfo {
        BuildInfo::parse(&format!(
            "rustc: {rustc}\nllvm: 22\nbpf-linker: 0.13.0\ncargo: 1.95\n\
             sources-sha256: {sources}\nobject-sha256: {object}\nobject-size: 1\n"
        ))
        .unwrap()
    }

    #[test]
    fn the_same_tools_must_make_the_same_bytes() {
        let (recorded, now) = (info("1.96", "s", "o"), info("1.96", "s", "o"));
        assert!(
            compare(&recorded, &now, true)
                .unwrap()
                .contains("byte for byte")
        );
        assert!(compare(&recorded, &now, false).is_err());
    }

    #[test]
    fn a_changed_string_of_btf_and_a_changed_instruction_are_found() {
        let object = include_bytes!("../../../tcptrace/ebpf/tcptrace.bpf.o");
        let (rest, len, strings) = without_order_of_btf(object).unwrap();
        assert!(strings.contains(&b"Stats".to_vec()));
        let find = |text: &[u8]| {
            object
                .windows(text.len())
                .position(|it| it == text)
                .unwrap()
        };
        // `struct btf_header` begins with 0xeb9f; the order of the types after it does not matter.
        for (at, same) in [
            (find(&[0x9f, 0xeb, 1, 0]) + 40, true),
            (find(b"\0Stats\0") + 1, false),
            (0x100, false),
        ] {
            let mut changed = object.to_vec();
            changed[at] ^= 1;
            let equal =
                without_order_of_btf(&changed).unwrap() == (rest.clone(), len, strings.clone());
            assert_eq!(equal, same, "byte {at}");
        }
    }

    #[test]
    fn with_other_tools_the_sources_must_have_the_recorded_hash() {
        let recorded = info("1.96", "s", "o");
        let found = compare(&recorded, &info("1.97", "s", "o"), false).unwrap();
        assert!(found.contains("rustc was 1.96, here it is 1.97"));
        assert!(compare(&recorded, &info("1.97", "changed", "o"), false).is_err());
    }

    #[test]
    fn an_object_of_another_build_is_refused() {
        let recorded = info("1.96", "s", "o");
        assert!(compare(&recorded, &info("1.96", "s", "other"), true).is_err());
    }
}
