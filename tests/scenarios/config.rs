//! Configuration files, as root reads them.

use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use tests::run::{Ended, Running, tcptrace};
use tests::{Lab, mounts};

/// Runs `tcptrace ARGS…` with `machine` as the text of /etc/tcptrace.toml and `user` as that of the
/// user's file, which belongs to the user with the id `owner`.
fn run_with(machine: &str, user: &str, owner: u32, args: &[&str]) -> Ended {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let etc = folder.path().join("etc");
    fs::create_dir_all(folder.path().join("tcptrace")).expect("create a folder");
    fs::create_dir_all(&etc).expect("create a folder");
    fs::write(etc.join("tcptrace.toml"), machine).expect("write the machine's file");
    let file = folder.path().join("tcptrace/config.toml");
    fs::write(&file, user).expect("write the user's file");
    chown(&file, Some(owner), None).expect("change the file's owner");
    let mut command: Command = tcptrace(args);
    command.env_remove("TCPTRACE_NO_CONFIG");
    command.env("XDG_CONFIG_HOME", folder.path());
    mounts::replace(&mut command, c"/etc", &etc);
    Running::run_to_end(command)
}

#[test]
fn a_trace_takes_its_defaults_from_both_files() {
    let lab = Lab::new();
    let port = lab.port();
    let machine = format!("port = {port}\nduration = \"10ms\"\n[trace]\noutput = \"csv\"\n");
    let ended = run_with(&machine, "[trace]\noutput = \"json\"\n", 0, &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let session = ended.stdout.lines().next().unwrap_or_default();
    assert!(session.contains(r#""event":"session""#), "{session}");
    let filters = format!(r#""filters":{{"port":"{port}"}}"#);
    assert!(session.contains(&filters), "{session}");
    let ended = run_with(&machine, "", 0, &["-p", "1", "-o", "text"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let header = ended.stdout.lines().next().unwrap_or_default();
    assert!(header.ends_with(": TCP, port 1"), "{header}");
}

#[test]
fn root_trusts_no_file_of_another_user() {
    let ended = run_with("", "[trace]\noutput = \"json\"\n", 1234, &["doctor"]);
    assert_eq!((ended.code, &*ended.stdout), (Some(2), ""));
    let trusted = "the file belongs to user 1234, but tcptrace runs as user 0 and trusts only its own \
                   files and those of root; --no-config ignores it\n";
    assert!(ended.stderr.ends_with(trusted), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[test]
fn the_demo_and_doctor_run_with_a_configuration() {
    let machine = "port = 1\nduration = \"1s\"\nverbose = true\ncount = 1\ndepth = \"histogram\"\n";
    for (args, shown) in [
        (
            &["demo"][..],
            "Shown: the kernel finishes the three-way handshake by itself.",
        ),
        (&["doctor"], "inet_sock_set_state"),
    ] {
        let ended = run_with(machine, "color = \"never\"\n", 0, args);
        assert_eq!(ended.code, Some(0), "{args:?} {}", ended.stderr);
        assert!(ended.stdout.contains(shown), "{args:?} {}", ended.stdout);
    }
}

#[test]
fn a_home_directory_of_another_user_has_no_configuration_for_this_one() {
    const NOBODY: u32 = 65534;
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().join(".config/tcptrace");
    fs::create_dir_all(&folder).expect("create a folder");
    let file = folder.join("config.toml");
    fs::write(&file, "wrong").expect("write a file");
    let permit = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("change a mode");
    };
    let stderr_of = || {
        let binary = File::open(tcptrace(&[]).get_program()).expect("the program");
        let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
        command.args(["replay", "no-such.trace"]).uid(NOBODY);
        command.env_remove("TCPTRACE_NO_CONFIG");
        command
            .env_remove("XDG_CONFIG_HOME")
            .env("HOME", home.path());
        let ended = Running::run_to_end(command);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        ended.stderr
    };
    // Nobody cannot know whether there is a file.
    permit(home.path(), 0o700);
    assert!(stderr_of().contains("cannot replay no-such.trace"));
    // Here is a file that nobody may not read.
    permit(home.path(), 0o755);
    permit(&file, 0o600);
    let expected = format!("tcptrace: {}: Permission denied\n", file.display());
    assert_eq!(stderr_of(), expected);
}
