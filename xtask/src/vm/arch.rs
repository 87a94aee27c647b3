//! The processors of the VMs.

use std::path::PathBuf;

/// A processor that QEMU emulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Arch {
    #[value(name = "x86_64")]
    X86_64,
    #[value(name = "aarch64")]
    Aarch64,
}

impl Arch {
    /// Returns Debian's name for it.
    pub fn debian(self) -> &'static str {
        match self {
            Arch::X86_64 => "amd64",
            Arch::Aarch64 => "arm64",
        }
    }

    /// Returns the emulator.
    pub fn qemu(self) -> &'static str {
        match self {
            Arch::X86_64 => "qemu-system-x86_64",
            Arch::Aarch64 => "qemu-system-aarch64",
        }
    }

    /// Returns the emulated machine and processor. All Debian kernels accept it.
    pub fn machine(self) -> &'static [&'static str] {
        match self {
            Arch::X86_64 => &["-cpu", "max,la57=off"],
            // The emulator computes pointer authentication in software, for every call of a function.
            Arch::Aarch64 => &["-machine", "virt", "-cpu", "max,pauth=off"],
        }
    }

    /// Returns the kernel's command line.
    pub fn command_line(self) -> &'static str {
        match self {
            // The kernel waits for ten ticks of a timer and panics without them. On a busy host the
            // emulator may be too late with them, hence `no_timer_check`.
            Arch::X86_64 => {
                "console=ttyS0 panic=-1 quiet loglevel=4 mitigations=off tsc=unstable \
                 no_timer_check rdinit=/init"
            }
            Arch::Aarch64 => {
                "console=ttyAMA0 panic=-1 quiet loglevel=4 mitigations=off rdinit=/init"
            }
        }
    }

    /// Returns the Debian packages that building programs for it and running them in a VM needs.
    pub fn packages(self) -> &'static [&'static str] {
        match self {
            Arch::X86_64 => &["qemu-system-x86", "xz-utils"],
            Arch::Aarch64 => &[
                "gcc-aarch64-linux-gnu",
                "libc6-dev-arm64-cross",
                "qemu-system-arm",
                "xz-utils",
            ],
        }
    }

    /// Returns programs of these packages.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Arch::X86_64 => &["qemu-system-x86_64", "xz"],
            Arch::Aarch64 => &["qemu-system-aarch64", "aarch64-linux-gnu-gcc", "xz"],
        }
    }

    /// Returns the libraries of all programs that are built for another processor than this machine's,
    /// including the dynamic loader.
    pub fn cross_libraries(self) -> Vec<PathBuf> {
        match self {
            Arch::X86_64 => vec![],
            Arch::Aarch64 => [
                "ld-linux-aarch64.so.1",
                "libc.so.6",
                "libgcc_s.so.1",
                "libm.so.6",
            ]
            .map(|name| PathBuf::from("/usr/aarch64-linux-gnu/lib").join(name))
            .into(),
        }
    }
}
