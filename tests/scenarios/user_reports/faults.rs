//! Missing privileges, and privileges of a file.

use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use tests::Lab;
use tests::capabilities::give_bpf_and_perfmon;
use tests::run::{Running, tcptrace};

const NOT_PERMITTED: i32 = 3;
const NOBODY: u32 = 65534;

/// Runs the binary by descriptor, for users without access to its folder.
fn by_descriptor(args: &[&str]) -> (Command, File) {
    let binary = File::open(tcptrace(&[]).get_program()).expect("the binary");
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    command.args(args).stdin(Stdio::null()).current_dir("/");
    (command, binary)
}

#[test]
fn a_trace_without_permission_leaves_output_files_unchanged() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).expect("its owner");
    let (old, new) = (
        folder.path().join("old.trace"),
        folder.path().join("new.trace"),
    );
    fs::write(&old, "an old recording\n").expect("a file");
    fs::set_permissions(&old, Permissions::from_mode(0o666)).expect("its owner");
    for path in [&old, &new] {
        for args in [&["--write"][..], &["record", "-o"]] {
            let path = path.to_str().expect("a path");
            let (mut command, _binary) = by_descriptor(&[args, &[path]].concat());
            command.uid(NOBODY).gid(NOBODY);
            let ended = Running::run_to_end(command);
            assert_eq!(ended.code, Some(NOT_PERMITTED), "{ended:?}");
        }
    }
    assert_eq!(
        fs::read_to_string(&old).expect("the file"),
        "an old recording\n"
    );
    assert!(!new.exists());
}

/// A user of a binary with file capabilities must not choose the object that it loads into the
/// kernel.
#[test]
fn a_binary_with_capabilities_ignores_the_users_object() {
    let _lab = Lab::new();
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("its owner");
    let copy = folder.path().join("tcptrace");
    fs::copy(tcptrace(&[]).get_program(), &copy).expect("a copy");
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).expect("its owner");
    if give_bpf_and_perfmon(&copy).is_err() {
        // The file system does not support extended attributes.
        return;
    }
    let object = folder.path().join("another.bpf.o");
    fs::write(&object, "no eBPF object").expect("a file");
    let mut command = Command::new(&copy);
    command
        .args(["-o", "json", "--duration", "100ms"])
        .env("TCPTRACE_BPF_OBJECT", &object)
        .stdin(Stdio::null())
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/");
    let ended = Running::run_to_end(command);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.starts_with(r#"{"event":"session""#),
        "{ended:?}"
    );
}
