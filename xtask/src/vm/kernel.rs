//! Debian's kernels, by package name, unpacked under target/.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    Arch,
    apt::{Apt, Packages, by_version},
};
use crate::cmd;

/// A kernel series, and the suite of Debian's archive that has it if the suite of this machine does
/// not.
const SERIES: [(&str, &str); 4] = [
    ("5.10", "bullseye"),
    ("6.1", "bookworm"),
    ("6.12", "trixie"),
    ("6.18", "trixie-backports"),
];

/// The name of the newest kernel in one of these suites.
const NEWEST: &str = "newest";
const NEWEST_SUITES: [&str; 2] = ["trixie-backports", "sid"];

/// The end of the name of an arm64 kernel with pages of 16 KiB. Debian has none with 64 KiB.
const BIG_PAGES: &str = "-16k";

/// Modules that the scenarios need, dependencies first: an iSCSI target, whose kernel thread calls
/// accept().
const MODULES: [&str; 4] = [
    "configfs",
    "scsi_common",
    "target_core_mod",
    "iscsi_target_mod",
];

/// A kernel that can be booted.
pub struct Kernel {
    pub arch: Arch,
    /// Such as `6.12`.
    pub series: String,
    pub image: PathBuf,
    /// Files of [`MODULES`], decompressed. The order of their names is the load order.
    pub modules: Vec<PathBuf>,
}

impl Kernel {
    /// Returns every known series.
    pub fn all() -> impl Iterator<Item = &'static str> {
        SERIES.iter().map(|(series, _)| *series).chain([NEWEST])
    }

    /// Finds kernels by series. With `all`, prints and skips those that are unavailable.
    pub fn choose(root: &Path, arch: Arch, wanted: &[String]) -> Result<Vec<Kernel>> {
        if wanted != ["all"] {
            return wanted
                .iter()
                .map(|series| Kernel::find(root, arch, series))
                .collect();
        }
        let mut kernels = vec![];
        for series in Kernel::all() {
            match Kernel::find(root, arch, series) {
                Ok(kernel) => kernels.push(kernel),
                Err(error) => println!("SKIPPED Linux {series}: {error:#}"),
            }
        }
        Ok(kernels)
    }

    /// Finds the newest kernel of a series, and downloads it the first time.
    pub fn find(root: &Path, arch: Arch, series: &str) -> Result<Kernel> {
        let folder = root.join("target/vm/kernels").join(match arch {
            Arch::X86_64 => series.to_owned(),
            Arch::Aarch64 => format!("{series}-arm64"),
        });
        let image = folder.join("vmlinuz");
        let modules = folder.join("modules");
        let real = folder.join("series");
        if !image.is_file() || !modules.is_dir() || !real.is_file() {
            let (version, flavour) = flavour(arch, series);
            let suites = suites(version)?;
            fs::create_dir_all(&folder)?;
            find_and_download(root, arch, version, &flavour, suites, &folder)
                .with_context(|| format!("no kernel {series} for {} can be had", arch.debian()))?;
        }
        Ok(Kernel {
            arch,
            series: fs::read_to_string(&real)?,
            image,
            modules: paths(&modules)?,
        })
    }

    /// Returns its name in messages and tables, such as `6.12` or `6.12 arm64`.
    pub fn name(&self) -> String {
        match self.arch {
            Arch::X86_64 => self.series.clone(),
            arch => format!("{} {}", self.series, arch.debian()),
        }
    }
}

/// Returns the version of a series, and the flavour of its packages. Cloud kernels are small, with
/// the drivers of a QEMU machine built in.
fn flavour(arch: Arch, series: &str) -> (&str, String) {
    match series.strip_suffix(BIG_PAGES) {
        Some(version) if arch == Arch::Aarch64 => {
            (version, format!("{}{BIG_PAGES}", arch.debian()))
        }
        _ => (series, format!("cloud-{}", arch.debian())),
    }
}

/// Returns the suites in which to search a series.
fn suites(series: &str) -> Result<Vec<&'static str>> {
    if series == NEWEST {
        return Ok(NEWEST_SUITES.to_vec());
    }
    let known = SERIES.iter().find(|(known, _)| *known == series);
    let (_, suite) = known.with_context(|| {
        let all: Vec<&str> = Kernel::all().collect();
        format!("no kernel {series} here; choose one of {}", all.join(", "))
    })?;
    Ok(vec![suite])
}

/// Returns the paths of a folder's entries, in order.
fn paths(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths: Vec<PathBuf> = entries.collect::<Result<_>>()?;
    paths.sort();
    Ok(paths)
}

/// Takes the newest kernel of a series, from this machine's suite if it has one.
fn find_and_download(
    root: &Path,
    arch: Arch,
    version: &str,
    flavour: &str,
    suites: Vec<&str>,
    folder: &Path,
) -> Result<()> {
    let start = match version {
        NEWEST => String::new(),
        version => format!("{version}."),
    };
    if arch == Arch::X86_64 && version != NEWEST {
        let own = Apt::of_this_machine();
        if let Some(packages) = own.newest_kernel(&start, flavour)? {
            return download(&own, &packages, folder);
        }
    }
    let mut found: Vec<(Apt, Packages)> = vec![];
    for suite in &suites {
        let apt = Apt::of_suite(&root.join("target/vm/apt"), suite, arch)?;
        apt.update()?;
        if let Some(packages) = apt.newest_kernel(&start, flavour)? {
            found.push((apt, packages));
        }
    }
    let newest = found
        .into_iter()
        .max_by(|(_, a), (_, b)| by_version(a.image(), b.image()));
    let (apt, packages) = newest.with_context(|| {
        format!(
            "apt knows no linux-image-{start}*-{flavour} package, in {} neither",
            suites.join(" and ")
        )
    })?;
    download(&apt, &packages, folder)
}

/// Unpacks a kernel's packages, and keeps its image and a few modules.
fn download(apt: &Apt, packages: &Packages, folder: &Path) -> Result<()> {
    println!("Downloading {}", packages.names().join(" "));
    let new = folder.join("new");
    if new.exists() {
        // Removes the remains of an interrupted download.
        fs::remove_dir_all(&new)?;
    }
    fs::create_dir(&new)?;
    let unpacked = packages.unpack(apt, &new)?;
    let all = cmd::output(Command::new("find").arg(&unpacked).args(["-type", "f"]))?;
    let image = all
        .lines()
        .find(|path| path.contains("/vmlinuz"))
        .with_context(|| format!("no image in {}", packages.image()))?;
    keep_modules(&all, &new.join("modules"))?;
    let modules = folder.join("modules");
    if modules.exists() {
        fs::remove_dir_all(&modules)?;
    }
    let series = packages.series().context("a kernel without a version")?;
    fs::write(folder.join("series"), series)?;
    fs::rename(image, folder.join("vmlinuz"))?;
    // Last, so that an interrupted download leaves no modules.
    fs::rename(new.join("modules"), &modules)?;
    fs::remove_dir_all(&new)?;
    Ok(())
}

/// Copies and decompresses the existing ones of [`MODULES`] from a list of files.
fn keep_modules(files: &str, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for (n, module) in MODULES.iter().enumerate() {
        let is_it = |path: &&str| path.contains(&format!("/{module}.ko"));
        let Some(path) = files.lines().find(is_it) else {
            continue;
        };
        let kept = to.join(format!("{n}-{module}.ko"));
        if path.ends_with(".xz") {
            let file = fs::File::create(&kept)?;
            cmd::run(Command::new("xz").args(["-dc", path]).stdout(file))?;
        } else {
            fs::copy(path, &kept)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_names_a_flavour_and_a_suite() {
        let of = |arch, series| {
            let (version, flavour) = flavour(arch, series);
            (version.to_owned(), flavour, suites(version).unwrap())
        };
        let (version, cloud, suite) = of(Arch::X86_64, "6.12");
        assert_eq!((&*version, &*cloud), ("6.12", "cloud-amd64"));
        assert_eq!(suite, ["trixie"]);
        let (version, pages, _) = of(Arch::Aarch64, "6.12-16k");
        assert_eq!((&*version, &*pages), ("6.12", "arm64-16k"));
        assert_eq!(of(Arch::Aarch64, "newest").2, NEWEST_SUITES);
        assert!(suites("6.12-16k").is_err());
    }
}
