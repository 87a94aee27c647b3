//! The files of a package, laid out as they are installed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{cmd, files, tcptrace};

/// The file of each shell's completions that packages install.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/tcptrace"),
    ("zsh", "usr/share/zsh/vendor-completions/_tcptrace"),
    ("fish", "usr/share/fish/vendor_completions.d/tcptrace.fish"),
];

/// Licences of the loader and of the eBPF programs.
const LICENCES: [&str; 3] = ["LICENSE-APACHE", "LICENSE-GPL", "LICENSE-MIT"];

pub struct Stage {
    directory: PathBuf,
    root: PathBuf,
}

impl Stage {
    /// Lays out the stripped binary, the man pages and the completions.
    pub fn new(root: &Path, directory: &Path) -> Result<Stage> {
        let stage = Stage {
            directory: directory.into(),
            root: root.into(),
        };
        let binary = stage.place("usr/bin/tcptrace")?;
        fs::copy(tcptrace::build(root)?, &binary)?;
        cmd::run(Command::new("strip").arg("--strip-unneeded").arg(&binary))?;
        for (shell, path) in COMPLETIONS {
            let script = cmd::output(Command::new(&binary).args(["completions", shell]))?;
            stage.write(path, script.as_bytes())?;
        }
        stage.man_pages()?;
        Ok(stage)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a file of the package.
    pub fn write(&self, path: &str, contents: &[u8]) -> Result<()> {
        let file = self.place(path)?;
        fs::write(&file, contents).with_context(|| format!("cannot write {}", file.display()))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
        Ok(())
    }

    /// Paths of the files, from the package's root, in order.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut paths = vec![];
        for file in files::below(&self.directory)? {
            let path = file.strip_prefix(&self.directory)?;
            if !path.starts_with("DEBIAN") {
                paths.push(path.display().to_string());
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// Size of the files in KiB.
    pub fn kib(&self) -> Result<u64> {
        let sizes = self.files()?.into_iter();
        let sizes = sizes.map(|it| Ok(fs::metadata(self.directory.join(it))?.len()));
        Ok(sizes.sum::<Result<u64>>()?.div_ceil(1024))
    }

    /// Lines of md5sum(1), which dpkg --verify reads.
    pub fn md5sums(&self) -> Result<String> {
        let mut md5sum = Command::new("md5sum");
        cmd::output(md5sum.current_dir(&self.directory).args(self.files()?))
    }

    /// Writes the unit of systemd, which no package enables.
    pub fn service(&self) -> Result<()> {
        const NAME: &str = "systemd/tcptrace-export.service";
        let unit = fs::read(self.root.join("deploy").join(NAME))?;
        self.write(
            &format!("usr/lib/{}", NAME.replace("systemd/", "systemd/system/")),
            &unit,
        )
    }

    /// Writes the licences.
    pub fn licences(&self, package: &str) -> Result<()> {
        for name in LICENCES {
            let licence = fs::read(self.root.join(name))?;
            self.write(&format!("usr/share/licenses/{package}/{name}"), &licence)?;
        }
        Ok(())
    }

    /// Writes the copyright and the changelog in Debian's formats.
    pub fn debian_documents(&self, package: &str, version: &str) -> Result<()> {
        let documents = format!("usr/share/doc/{package}");
        let mit = fs::read_to_string(self.root.join("LICENSE-MIT"))?;
        let copyright = include_str!("templates/copyright").replace("@MIT@", &indented(&mit));
        self.write(&format!("{documents}/copyright"), copyright.as_bytes())?;
        let changelog = include_str!("templates/changelog").replace("@VERSION@", version);
        self.write(&format!("{documents}/changelog"), changelog.as_bytes())?;
        self.compress(&format!("{documents}/changelog"))
    }

    /// Returns the packages of the binary's shared libraries, for `Depends`, by dpkg-shlibdeps(1).
    pub fn shared_libraries(&self) -> Result<String> {
        let debian = self.directory.parent().context("a directory")?;
        let control = "Source: tcptrace\n\nPackage: tcptrace-ebpf\nArchitecture: any\n";
        fs::write(debian.join("control"), control)?;
        let source = debian.parent().context("a directory")?;
        let mut shlibdeps = Command::new("dpkg-shlibdeps");
        shlibdeps
            .current_dir(source)
            .arg("-O")
            .arg(self.directory.join("usr/bin/tcptrace"));
        let found = cmd::output(&mut shlibdeps)?;
        let depends = found.trim().strip_prefix("shlibs:Depends=");
        Ok(depends.context("dpkg-shlibdeps names nothing")?.to_owned())
    }

    /// Writes section 8 from the command line's definition, and section 5 from Markdown.
    fn man_pages(&self) -> Result<()> {
        let section8 = self.place("usr/share/man/man8/tcptrace.8")?;
        let section8 = section8.parent().context("a directory")?;
        let reference = |words: &[&str]| {
            let mut cargo = cmd::cargo(&self.root);
            cargo.args([
                "run",
                "--quiet",
                "--package=tcptrace",
                "--example=reference",
                "--",
            ]);
            cmd::output(cargo.args(words))
        };
        reference(&["man", &section8.display().to_string()])?;
        let json = reference(&["json"])?;
        let format = fs::read_to_string(self.root.join("docs/src/recording-format.md"))?;
        for (name, title, markdown) in [
            ("tcptrace-json", "fields of tcptrace's JSON Lines", &json),
            (
                "tcptrace-format",
                "format of tcptrace's recordings",
                &format,
            ),
        ] {
            let page = man_page(name, title, markdown, &self.directory)?;
            self.write(&format!("usr/share/man/man5/{name}.5"), page.as_bytes())?;
        }
        for path in self.files()? {
            if path.starts_with("usr/share/man/") {
                self.compress(&path)?;
            }
        }
        Ok(())
    }

    /// Compresses a file, without its name and time, so that it is the same each time.
    fn compress(&self, path: &str) -> Result<()> {
        let file = self.directory.join(path);
        cmd::run(Command::new("gzip").arg("-9n").arg(&file))?;
        let file = file.with_added_extension("gz");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
        Ok(())
    }

    /// Returns the path of a file of the package, and makes its directories.
    fn place(&self, path: &str) -> Result<PathBuf> {
        let file = self.directory.join(path);
        let directory = file.parent().context("a file is in a directory")?;
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(file)
    }
}

/// Makes a man page of section 5 from Markdown that has one heading of level 1.
fn man_page(name: &str, title: &str, markdown: &str, scratch: &Path) -> Result<String> {
    let (_, body) = markdown.split_once('\n').context("no Markdown")?;
    // Level 1 becomes a section of the page.
    let body = body.replace("\n### ", "\n#### ").replace("\n## ", "\n# ");
    let body = body.replace("\n#### ", "\n## ");
    let source = scratch.with_extension("md");
    let text = format!("# NAME\n\n{name} - {title}\n\n# DESCRIPTION\n{body}");
    fs::write(&source, text)?;
    let mut lowdown = Command::new("lowdown");
    lowdown
        .args(["-s", "-Tman", "-m"])
        .arg(format!("title: {name}"))
        .args(["-m", "section: 5"])
        .arg(&source);
    cmd::output(&mut lowdown)
}

/// Formats a text as the continuation of a field in Debian's copyright file.
fn indented(text: &str) -> String {
    let lines = text.trim_end().lines().map(|line| match line.trim() {
        "" => " .".to_owned(),
        line => format!(" {line}"),
    });
    lines.collect::<Vec<_>>().join("\n")
}
