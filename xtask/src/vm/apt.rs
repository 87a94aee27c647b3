//! apt, with this machine's sources or with others of the same archive.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::Arch;
use crate::cmd;

pub struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// Uses the machine's own package lists, which are those of its processor.
    pub fn of_this_machine() -> Apt {
        Apt { options: vec![] }
    }

    /// Uses another suite of the archive whose address this machine uses, for a processor.
    pub fn of_suite(folder: &Path, suite: &str, arch: Arch) -> Result<Apt> {
        let sites = indextargets("$(REPO_URI)")?;
        let site = sites
            .lines()
            .find(|site| !site.contains("security"))
            .context("this machine's apt has no sources")?;
        Apt::private(folder, suite, arch, &format!("deb {site} {suite} main\n"))
    }

    /// Uses the suites of Debian that this machine uses, for another processor.
    pub fn of_this_machines_suites(folder: &Path, arch: Arch) -> Result<Apt> {
        let suites = indextargets("deb $(REPO_URI) $(RELEASE) $(COMPONENT)")?;
        ensure!(
            !suites.trim().is_empty(),
            "this machine's apt has no sources"
        );
        Apt::private(folder, "own", arch, &suites)
    }

    /// Uses a private root, which leaves the machine's package lists unchanged.
    fn private(folder: &Path, name: &str, arch: Arch, sources: &str) -> Result<Apt> {
        let folder = folder.join(format!("{name}-{}", arch.debian()));
        fs::create_dir_all(folder.join("lists/partial"))?;
        fs::create_dir_all(folder.join("cache/archives/partial"))?;
        let (list, status) = (folder.join("sources.list"), folder.join("status"));
        fs::write(&list, sources)?;
        fs::write(&status, "")?;
        let option = |name: &str, path: &Path| format!("{name}={}", path.display());
        Ok(Apt {
            options: vec![
                option("Dir::Etc::SourceList", &list),
                "Dir::Etc::SourceParts=/dev/null".into(),
                option("Dir::State::Lists", &folder.join("lists")),
                option("Dir::State::Status", &status),
                option("Dir::Cache", &folder.join("cache")),
                format!("APT::Architecture={}", arch.debian()),
                format!("APT::Architectures={}", arch.debian()),
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

    /// Returns the names of all packages that begin so.
    fn names(&self, start: &str) -> Result<Vec<String>> {
        let names = cmd::output(self.command("apt-cache").args(["pkgnames", start]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Returns the packages of the newest kernel whose version begins so, and its version. `flavour`
    /// is the end of the package's name, such as `cloud-arm64`.
    pub fn newest_kernel(&self, version: &str, flavour: &str) -> Result<Option<Packages>> {
        let newest = self
            .names(&format!("linux-image-{version}"))?
            .into_iter()
            .filter(|name| is_flavour(name, flavour))
            .max_by(|a, b| by_version(a, b));
        let Some(image) = newest else {
            return Ok(None);
        };
        let mut packages = vec![image.clone()];
        // From Linux 6.19 the image's package depends on two others, which have the files.
        let version = image.trim_start_matches("linux-image-");
        for start in ["linux-binary-", "linux-modules-"] {
            let name = format!("{start}{version}");
            packages.extend(self.names(&name)?.into_iter().filter(|it| *it == name));
        }
        Ok(Some(Packages(packages)))
    }

    pub fn update(&self) -> Result<()> {
        let updated = self.command("apt-get").args(["-qq", "update"]).status()?;
        ensure!(updated.success(), "apt cannot read its package lists");
        Ok(())
    }

    pub fn download(&self, packages: &[String], into: &Path) -> Result<()> {
        cmd::run(
            self.command("apt-get")
                // apt's own user may not write here, and apt warns about that when run as root.
                .args(["-qq", "-o", "APT::Sandbox::User=root", "download"])
                .args(packages)
                .current_dir(into),
        )
    }
}

/// Returns a line in this format for each of this machine's package lists from Debian.
fn indextargets(format: &str) -> Result<String> {
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format", format]);
    cmd::output(apt.args(["Created-By: Packages", "Origin: Debian"]))
}

/// The packages of one kernel, the image's first.
pub struct Packages(Vec<String>);

impl Packages {
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Returns the name of the image's package.
    pub fn image(&self) -> &str {
        &self.0[0]
    }

    /// Returns the version in the image's name up to the minor number, such as `6.12`.
    pub fn series(&self) -> Option<String> {
        let version = self.image().strip_prefix("linux-image-")?;
        let numbers = numbers(version);
        Some(format!("{}.{}", numbers.first()?, numbers.get(1)?))
    }

    /// Downloads and unpacks them. Returns the folder with the kernel's files.
    pub fn unpack(&self, apt: &Apt, folder: &Path) -> Result<PathBuf> {
        apt.download(&self.0, folder)?;
        let unpacked = folder.join("unpacked");
        for package in fs::read_dir(folder)? {
            let package = package?.path();
            if package.extension().is_some_and(|it| it == "deb") {
                let mut unpack = Command::new("dpkg-deb");
                cmd::run(unpack.arg("-x").arg(package).arg(&unpacked))?;
            }
        }
        Ok(unpacked)
    }
}

/// Returns whether a package has a kernel of this flavour. The signed package has the same kernel as
/// the unsigned one; some suites lack the unsigned one.
fn is_flavour(package: &str, flavour: &str) -> bool {
    let package = package.trim_end_matches("-unsigned");
    package.strip_suffix(flavour).is_some_and(|rest| {
        rest.ends_with('-') && !rest.ends_with("-rt-") && !rest.ends_with("-cloud-")
    })
}

/// Orders packages by the numbers in their names.
pub fn by_version(a: &str, b: &str) -> Ordering {
    // The unsigned package precedes the signed one if both exist.
    numbers(a)
        .cmp(&numbers(b))
        .then_with(|| a.len().cmp(&b.len()))
}

fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
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

    #[test]
    fn a_flavour_is_the_end_of_a_package_name() {
        for (package, flavour, is) in [
            (
                "linux-image-6.12.9+deb13-cloud-arm64-unsigned",
                "cloud-arm64",
                true,
            ),
            ("linux-image-6.12.9+deb13-cloud-arm64", "cloud-arm64", true),
            (
                "linux-image-6.12.9+deb13-cloud-arm64-dbg",
                "cloud-arm64",
                false,
            ),
            ("linux-image-6.12.9+deb13-arm64", "cloud-arm64", false),
            ("linux-image-6.12.9+deb13-cloud-arm64", "arm64", false),
            ("linux-image-6.12.9+deb13-arm64-16k", "arm64-16k", true),
        ] {
            assert_eq!(is_flavour(package, flavour), is, "{package} {flavour}");
        }
    }

    #[test]
    fn the_series_is_in_the_name_of_the_image() {
        let packages = Packages(vec!["linux-image-7.3.4+deb13-cloud-arm64".into()]);
        assert_eq!(packages.series().as_deref(), Some("7.3"));
    }
}
