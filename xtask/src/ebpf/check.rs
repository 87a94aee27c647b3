//! Proves that the committed object comes from the source.
//!
//! The same tools make the same bytes in any folder, so the object is built again and compared.
//! Other tools make other bytes. Then the recorded hash of the sources must match, and the source
//! must compile.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

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
        rebuilt == committed,
    )?;
    println!("{found}");
    Ok(())
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
    Ok("The eBPF object is, byte for byte, what its source gives.".to_owned())
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
