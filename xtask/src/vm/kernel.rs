//! Debian's kernels, by package name, unpacked under target/.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::cmd;

/// A kernel series, and the suite of Debian's archive that has it if the suite of this machine does
/// not.
const SERIES: [(&str, &str); 4] = [
    ("5.10", "bullseye"),
    ("6.1", "bookworm"),
    ("6.12", "trixie"),
    ("6.18", "trixie-backports"),
];

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
    /// Such as `6.12`.
    pub series: String,
    pub image: PathBuf,
    /// Files of [`MODULES`], decompressed. The order of their names is the load order.
    pub modules: Vec<PathBuf>,
}

impl Kernel {
    /// Returns every known series.
    pub fn all() -> impl Iterator<Item = &'static str> {
        SERIES.iter().map(|(series, _)| *series)
    }

    /// Finds kernels by series. With `all`, prints and skips those that are unavailable.
    pub fn choose(root: &Path, wanted: &[String]) -> Result<Vec<Kernel>> {
        if wanted != ["all"] {
            return wanted
                .iter()
                .map(|series| Kernel::find(root, series))
                .collect();
        }
        let mut kernels = vec![];
        for series in Kernel::all() {
            match Kernel::find(root, series) {
                Ok(kernel) => kernels.push(kernel),
                Err(error) => println!("SKIPPED Linux {series}: {error:#}"),
            }
        }
        Ok(kernels)
    }

    /// Finds the newest kernel of a series, and downloads it the first time.
    pub fn find(root: &Path, series: &str) -> Result<Kernel> {
        let known = SERIES.iter().find(|(known, _)| *known == series);
        let (_, suite) = known.with_context(|| {
            let all: Vec<&str> = Kernel::all().collect();
            format!("no kernel {series} here; choose one of {}", all.join(", "))
        })?;
        let folder = root.join("target/vm/kernels").join(series);
        let image = folder.join("vmlinuz");
        let modules = folder.join("modules");
        if !image.is_file() || !modules.is_dir() {
            fs::create_dir_all(&folder)?;
            find_and_download(root, series, suite, &folder)
                .with_context(|| format!("no kernel {series} can be had"))?;
        }
        Ok(Kernel {
            series: series.to_owned(),
            image,
            modules: paths(&modules)?,
        })
    }
}

/// Returns the paths of a folder's entries, in order.
fn paths(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths: Vec<PathBuf> = entries.collect::<Result<_>>()?;
    paths.sort();
    Ok(paths)
}

/// Takes the newest cloud kernel of a series, from this machine's suite if it has one.
fn find_and_download(root: &Path, series: &str, suite: &str, folder: &Path) -> Result<()> {
    let own = Apt::of_this_machine();
    if let Some(package) = own.newest_kernel(series)? {
        return download(&own, &package, folder);
    }
    let other = Apt::of_suite(&root.join("target/vm/apt"), suite)?;
    other.update()?;
    let package = other.newest_kernel(series)?.with_context(|| {
        format!("apt knows no linux-image-{series}.*-cloud-amd64 package, in {suite} neither")
    })?;
    download(&other, &package, folder)
}

/// Unpacks a kernel's package, and keeps its image and a few modules.
fn download(apt: &Apt, package: &str, folder: &Path) -> Result<()> {
    println!("Downloading {package}");
    let new = folder.join("new");
    if new.exists() {
        // Removes the remains of an interrupted download.
        fs::remove_dir_all(&new)?;
    }
    fs::create_dir(&new)?;
    cmd::run(
        apt.command("apt-get")
            // apt's own user may not write here, and apt warns about that when run as root.
            .args(["-qq", "-o", "APT::Sandbox::User=root", "download", package])
            .current_dir(&new),
    )?;
    let found = |in_folder: &Path, start: &str| -> Result<PathBuf> {
        let mut names = fs::read_dir(in_folder)?.filter_map(|entry| Some(entry.ok()?.path()));
        let matches = |path: &PathBuf| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(start))
        };
        names
            .find(matches)
            .with_context(|| format!("no {start}* in {}", in_folder.display()))
    };
    let unpacked = new.join("unpacked");
    cmd::run(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(found(&new, "linux-image-")?)
            .arg(&unpacked),
    )?;
    keep_modules(&unpacked, &new.join("modules"))?;
    let modules = folder.join("modules");
    if modules.exists() {
        fs::remove_dir_all(&modules)?;
    }
    fs::rename(
        found(&unpacked.join("boot"), "vmlinuz-")?,
        folder.join("vmlinuz"),
    )?;
    // Last, so that an interrupted download leaves no modules.
    fs::rename(new.join("modules"), &modules)?;
    fs::remove_dir_all(&new)?;
    Ok(())
}

/// Copies and decompresses the existing ones of [`MODULES`].
fn keep_modules(unpacked: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    let all = cmd::output(Command::new("find").arg(unpacked).args(["-name", "*.ko*"]))?;
    for (n, module) in MODULES.iter().enumerate() {
        let is_it = |path: &&str| path.contains(&format!("/{module}.ko"));
        let Some(path) = all.lines().find(is_it) else {
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

/// apt, with this machine's sources or with those of another suite of the same archive.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn of_this_machine() -> Apt {
        Apt { options: vec![] }
    }

    /// Uses a private root, which leaves the machine's package lists unchanged. The archive's
    /// address is the one that this machine uses.
    fn of_suite(folder: &Path, suite: &str) -> Result<Apt> {
        let folder = folder.join(suite);
        fs::create_dir_all(folder.join("lists/partial"))?;
        fs::create_dir_all(folder.join("cache/archives/partial"))?;
        let sites =
            cmd::output(Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)"]))?;
        let site = sites
            .lines()
            .find(|site| !site.contains("security"))
            .context("this machine's apt has no sources")?;
        let sources = folder.join("sources.list");
        fs::write(&sources, format!("deb {site} {suite} main\n"))?;
        let option = |name: &str, path: &Path| format!("{name}={}", path.display());
        Ok(Apt {
            options: vec![
                option("Dir::Etc::SourceList", &sources),
                "Dir::Etc::SourceParts=/dev/null".into(),
                option("Dir::State::Lists", &folder.join("lists")),
                option("Dir::Cache", &folder.join("cache")),
            ],
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }

    /// Returns the package with the newest cloud kernel of a series.
    fn newest_kernel(&self, series: &str) -> Result<Option<String>> {
        let start = format!("linux-image-{series}.");
        let names = cmd::output(self.command("apt-cache").args(["pkgnames", &start]))?;
        // Cloud kernels are small, with the drivers of a QEMU machine built in. The signed package
        // has the same kernel; some suites lack the unsigned one.
        let newest = names
            .lines()
            .filter(|name| {
                name.ends_with("-cloud-amd64-unsigned") || name.ends_with("-cloud-amd64")
            })
            .max_by(|a, b| by_version(a, b));
        Ok(newest.map(str::to_owned))
    }

    fn update(&self) -> Result<()> {
        let updated = self.command("apt-get").args(["-qq", "update"]).status()?;
        ensure!(updated.success(), "apt cannot read its package lists");
        Ok(())
    }
}

/// Orders names by the numbers in them.
fn by_version(a: &str, b: &str) -> Ordering {
    let numbers = |name: &str| -> Vec<u64> {
        name.split(|c: char| !c.is_ascii_digit())
            .filter_map(|digits| digits.parse().ok())
            .collect()
    };
    // The unsigned package precedes the signed one if both exist.
    numbers(a)
        .cmp(&numbers(b))
        .then_with(|| a.len().cmp(&b.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_ordered_numerically() {
        let mut names = [
            "linux-image-6.1.0-9-cloud-amd64-unsigned",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            "linux-image-6.1.0-50-cloud-amd64-unsigned",
        ];
        names.sort_by(|a, b| by_version(a, b));
        assert_eq!(names[2], "linux-image-6.1.0-56-cloud-amd64-unsigned");
        assert_eq!(names[0], "linux-image-6.1.0-9-cloud-amd64-unsigned");
    }
}
