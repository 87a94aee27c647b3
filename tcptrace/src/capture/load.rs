//! Preparation of the eBPF object for the running kernel: offsets, settings and maps.

use std::ffi::OsString;
use std::os::fd::AsFd as _;

use anyhow::Context as _;
use aya::maps::{Map, MapData, RingBuf};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader, VerifierLogLevel, include_bytes_aligned};
use tcptrace_ebpf::abi;

use super::btf::{self, Btf, BtfError};
use super::error::{CaptureError, no_map, os_error};
use super::positions::{Positions, page_size};
use super::request::{RING_BYTES, Request};
use super::{filter, kernels, privilege, tracefs};

/// The eBPF programs, built from tcptrace-ebpf by `cargo xtask ebpf build`.
static OBJECT: &[u8] = include_bytes_aligned!("../../ebpf/tcptrace.bpf.o");

/// Environment variable with a file to load instead of the embedded object. Only in diagnostics
/// builds.
#[cfg(feature = "diagnostics")]
const OBJECT_VARIABLE: &str = "TCPTRACE_BPF_OBJECT";

/// The processor that this program was built for.
const MACHINE: u32 = if cfg!(target_arch = "aarch64") {
    abi::machine::AARCH64
} else {
    abi::machine::X86_64
};

/// Returns whether the programs do not need an offset on every kernel, or not on this processor.
fn may_be_missing(global: &str) -> bool {
    let others = match MACHINE {
        abi::machine::AARCH64 => abi::X86_64_OFFSETS,
        _ => abi::AARCH64_OFFSETS,
    };
    abi::OPTIONAL_OFFSETS.contains(&global) || others.contains(&global)
}

/// Returns the file to load instead of the embedded object. Always `None` without the feature
/// `diagnostics`.
fn other_object() -> Option<OsString> {
    #[cfg(feature = "diagnostics")]
    {
        // SAFETY: getauxval only reads the auxiliary vector.
        let is_secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
        trusted(std::env::var_os(OBJECT_VARIABLE), is_secure)
    }
    #[cfg(not(feature = "diagnostics"))]
    None
}

/// Returns the file unless the process has more privileges than the user who set the environment
/// (AT_SECURE, getauxval(3)). Otherwise a program with file capabilities would load any user's
/// object.
#[cfg(any(test, feature = "diagnostics"))]
fn trusted(asked: Option<OsString>, is_secure: bool) -> Option<OsString> {
    asked.filter(|_| !is_secure)
}

/// The running kernel's types: one copy for aya, one for reading offsets.
pub struct Kernel {
    /// For loading programs with aya.
    pub btf: aya::Btf,
    /// For reading offsets, which aya does not offer.
    pub own_btf: Btf,
}

/// The object in the kernel, with its ring buffer. Its programs are not verified yet.
pub struct Loaded {
    pub ebpf: Ebpf,
    pub kernel: Kernel,
    pub ring: RingBuf<MapData>,
    pub positions: Positions,
}

/// Resolves offsets for this kernel and creates the maps. Programs are loaded later.
pub fn load(request: &Request) -> Result<Loaded, CaptureError> {
    let mut loader = EbpfLoader::new();
    // The loader reads the kernel's types by default. The object does not need them.
    loader.btf(None);
    let own_btf = Btf::from_file(btf::VMLINUX).map_err(|error| match error {
        BtfError::Read(_, cause)
            if matches!(cause.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) =>
        {
            CaptureError::Failed(cause.into())
        }
        BtfError::Read(..) => CaptureError::Unsupported(format!(
            "no BTF ({error}); boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as the \
             distributions' are"
        )),
        error => CaptureError::Unsupported(format!("{}: {error}", btf::VMLINUX)),
    })?;
    let btf = aya::Btf::parse(&own_btf.names(), aya::Endianness::default())
        .map_err(|error| CaptureError::Unsupported(format!("{}: {error}", btf::VMLINUX)))?;

    let mut globals = vec![];
    for &(global, path) in abi::OFFSETS {
        let offset = match own_btf.offset(path) {
            Ok(offset) => offset,
            Err(_) if may_be_missing(global) => 0,
            Err(error) => return Err(CaptureError::Unsupported(error.to_string())),
        };
        globals.push((global, offset));
    }
    for &(global, path) in abi::BITS {
        let offset = own_btf.bit(path);
        let offset = offset.map_err(|error| CaptureError::Unsupported(error.to_string()))?;
        globals.push((global, offset));
    }
    let ring_bytes: u32 = match request.ring_bytes {
        0 => RING_BYTES,
        // The kernel takes whole pages, which on arm64 have up to 64 KiB.
        bytes => bytes.max(page_size()),
    };
    if !request.filter.cgroups.is_empty() {
        filter::can_tell_cgroups(&globals)?;
    }
    globals.push((abi::setting::MACHINE, MACHINE));
    globals.push((abi::setting::FILTER, filter::bits(&request.filter)));
    let levels = filter::cgroup_levels(&request.filter);
    globals.push((abi::setting::CGROUP_LEVELS, levels));
    globals.push((abi::setting::WAKE_AT, ring_bytes / 4));
    let running = KernelVersion::current().ok();
    let cookie_helper = kernels::SOCKET_COOKIE.is_in(running);
    globals.push((abi::setting::COOKIE_HELPER, cookie_helper.into()));
    let task_helpers = kernels::TASK_REGISTERS.is_in(running);
    globals.push((abi::setting::TASK_HELPERS, task_helpers.into()));
    let parameters = own_btf.parameters("inet_csk_accept").unwrap_or(0);
    globals.push((abi::setting::ACCEPT_ARGS, parameters as u32));
    globals.push((abi::setting::WHY, request.why_ns.is_some().into()));
    let passes_state = own_btf.tracepoint_arguments("sched_switch") >= Some(4);
    globals.push((abi::setting::SWITCH_STATE, passes_state.into()));
    // Without tracefs the classic tracepoint cannot be attached either, so these offsets may stay
    // 0.
    if let Some(format) = tracefs::Format::read("sock", "inet_sock_set_state") {
        for (global, field) in [
            (abi::setting::TP_SKADDR, "skaddr"),
            (abi::setting::TP_OLDSTATE, "oldstate"),
            (abi::setting::TP_NEWSTATE, "newstate"),
        ] {
            globals.push((global, format.offset(field).unwrap_or(0)));
        }
    }

    let calls = match request.calls {
        0 => abi::CALLS,
        calls => calls,
    };

    privilege::raise_memlock_limit();
    loader
        .verifier_log_level(VerifierLogLevel::default())
        .map_max_entries("EVENTS", ring_bytes);
    loader.map_max_entries("CALLS", calls);
    if !request.segments {
        loader.map_max_entries("AWAITED_ACKS", 1);
    }
    if request.why_ns.is_none() {
        loader.map_max_entries("ACCEPTORS", 1);
    }
    for (map, entries) in filter::sizes(&request.filter) {
        loader.map_max_entries(map, entries);
    }
    for (global, value) in &globals {
        loader.override_global(global, value, true);
    }
    let loaded = match other_object() {
        Some(path) => loader.load_file(path),
        None => loader.load(OBJECT),
    };
    let mut ebpf = loaded.map_err(|error| {
        let error = anyhow::Error::new(error);
        match os_error(&error) {
            Some(libc::EPERM) => privilege::refused("to create eBPF maps"),
            _ => CaptureError::Failed(error.context("loading the eBPF object")),
        }
    })?;
    let events = ebpf.take_map("EVENTS").ok_or_else(no_map)?;
    let positions = match &events {
        Map::RingBuf(map) => Positions::map(map.fd().as_fd()),
        _ => return Err(no_map().into()),
    }
    .context("mapping the positions of the ring buffer")?;
    let ring = RingBuf::try_from(events).map_err(anyhow::Error::new)?;
    let kernel = Kernel { btf, own_btf };
    Ok(Loaded {
        ebpf,
        kernel,
        ring,
        positions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syscall::Machine;

    #[test]
    fn each_processor_needs_its_own_registers() {
        let (own, other) = match MACHINE {
            abi::machine::AARCH64 => ("REGS_ORIG_X0", "REGS_ORIG_AX"),
            _ => ("REGS_ORIG_AX", "REGS_ORIG_X0"),
        };
        assert!(may_be_missing(other));
        assert!(!may_be_missing(own));
        assert!(!may_be_missing("SK_STATE"));
        assert!(may_be_missing("SK_CGROUP"));
    }

    #[test]
    fn numbers_of_system_calls_are_those_of_the_processor() {
        for (machine, calls) in [
            (Machine::X86_64, abi::x86_64::ALL),
            (Machine::Aarch64, abi::aarch64::ALL),
        ] {
            for (name, number) in calls {
                let known = machine.syscall(*number);
                assert_eq!(known, Some(name.to_lowercase().as_str()), "{machine:?}");
            }
        }
    }

    #[test]
    fn a_privileged_process_ignores_the_object_of_the_environment() {
        let asked = || Some(OsString::from("other.o"));
        assert_eq!(trusted(asked(), true), None);
        assert_eq!(trusted(asked(), false), asked());
        assert_eq!(trusted(None, false), None);
    }

    /// An ordinary build does not read the variable.
    #[cfg(not(feature = "diagnostics"))]
    #[test]
    fn an_ordinary_build_loads_only_its_own_object() {
        assert_eq!(other_object(), None);
    }
}
