//! Tests of the program with a configuration file in a home directory.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A home directory with a configuration file.
struct Home(tempfile::TempDir);

impl Home {
    fn with(text: &str) -> Home {
        let home = Home(tempfile::tempdir().unwrap());
        fs::create_dir_all(home.file().parent().unwrap()).unwrap();
        fs::write(home.file(), text).unwrap();
        home.permit(0o644);
        home
    }

    fn file(&self) -> PathBuf {
        self.0.path().join(".config/tcptrace/config.toml")
    }

    fn permit(&self, mode: u32) {
        fs::set_permissions(self.file(), Permissions::from_mode(mode)).unwrap();
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
        command.args(args);
        command.env("HOME", self.0.path());
        command.env_remove("XDG_CONFIG_HOME");
        command.env_remove("TCPTRACE_NO_CONFIG");
        command.output().unwrap()
    }
}

fn recording() -> String {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/late_accept.trace");
    golden.display().to_string()
}

/// Returns the first line of what a successful run prints.
#[track_caller]
fn first_line(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout.lines().next().unwrap_or_default().to_owned()
}

#[track_caller]
fn assert_refused(output: &Output, line: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr, format!("tcptrace: {line}\n"));
    assert!(output.stdout.is_empty());
}

#[test]
fn a_file_in_the_home_directory_sets_the_form_of_a_replay() {
    let home = Home::with(
        "only = \"connection\"\n[replay]\noutput = \"csv\"\nfields = [\"conn\", \"verdict\"]\n",
    );
    let replay = recording();
    let output = home.run(&["replay", &replay]);
    assert_eq!(first_line(&output), "conn,verdict");
    let rows = String::from_utf8_lossy(&output.stdout).lines().count();
    assert!(rows > 1, "{rows}");
    let output = home.run(&["replay", &replay, "--fields=verdict"]);
    assert_eq!(first_line(&output), "verdict");
    for args in [
        &["replay", &replay, "--no-config"][..],
        &["replay", "--no-config", &replay],
    ] {
        let line = first_line(&home.run(args));
        assert!(line.starts_with("tcptrace "), "{line}");
    }
}

#[test]
fn variables_choose_the_file_or_none() {
    let home = Home::with("[replay]\noutput = \"csv\"\nfields = \"conn\"\n");
    let elsewhere = tempfile::tempdir().unwrap();
    let first = |name: &str, value: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
        command.args(["replay", &recording()]);
        command.env("HOME", elsewhere.path());
        command.env_remove("TCPTRACE_NO_CONFIG").env(name, value);
        first_line(&command.output().unwrap())
    };
    let directory = home.0.path().join(".config");
    assert_eq!(first("XDG_CONFIG_HOME", &directory), "conn");
    assert_eq!(first("HOME", home.0.path()), "conn");
    let without = |value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
        command.args(["replay", &recording()]);
        command.env("HOME", home.0.path());
        command.env("TCPTRACE_NO_CONFIG", value);
        first_line(&command.output().unwrap())
    };
    assert!(without("1").starts_with("tcptrace "));
    assert_eq!(without(""), "conn");
}

#[test]
fn a_wrong_file_is_one_line_with_its_path_and_exit_code_2() {
    let home = Home::with("verbose = true\n\nprot = 80\n");
    let file = home.file().display().to_string();
    let expected = format!("{file}:3: there is no option prot; did you mean port?");
    assert_refused(&home.run(&["replay", &recording()]), &expected);
    assert_refused(&home.run(&["doctor"]), &expected);
    // These need no options.
    assert_eq!(home.run(&["schema"]).status.code(), Some(0));
    assert_eq!(home.run(&["completions", "bash"]).status.code(), Some(0));
    assert_eq!(home.run(&["--help"]).status.code(), Some(0));
    assert_eq!(home.run(&["--version"]).status.code(), Some(0));
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    let home = Home::with("[replay]\noutput = \"csv\"\n");
    home.permit(0o666);
    let file = home.file().display().to_string();
    assert_refused(
        &home.run(&["replay", &recording()]),
        &format!(
            "{file}: other users may write the file (mode 666); `chmod go-w` corrects it, \
             --no-config ignores it"
        ),
    );
    let output = home.run(&["replay", &recording(), "--no-config"]);
    assert_eq!(output.status.code(), Some(0));
}
