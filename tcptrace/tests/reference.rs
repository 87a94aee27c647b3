//! Tests of the commands that describe tcptrace: `schema` and `completions`.

use std::process::{Command, Output};

fn tcptrace(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    command.args(args).output().expect("tcptrace starts")
}

#[test]
fn schema_prints_the_documented_schema() {
    let output = tcptrace(&["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let documented = include_str!("../../docs/schema/tcptrace-2.json");
    assert!(String::from_utf8(output.stdout).unwrap() == documented);
}

#[test]
fn bash_completes_a_subcommand_and_an_option_of_it() {
    let script = String::from_utf8(tcptrace(&["completions", "bash"]).stdout).unwrap();
    for (words, last, expected) in [
        ("tcptrace rep", 1, "replay report"),
        ("tcptrace record --rot", 2, "--rotate"),
    ] {
        let word = words.rsplit(' ').next().unwrap();
        let complete = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD={last}; _tcptrace tcptrace '{word}' ''; \
             echo \"${{COMPREPLY[*]}}\""
        );
        let output = Command::new("bash").args(["-c", &complete]).output();
        let output = output.expect("bash starts");
        let replies = String::from_utf8(output.stdout).unwrap();
        assert_eq!(replies.trim(), expected, "{words}");
    }
}

#[test]
fn an_unknown_shell_is_refused_with_one_line() {
    let output = tcptrace(&["completions", "tcsh"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        stderr,
        "tcptrace: invalid value 'tcsh' for '<SHELL>' [possible values: bash, elvish, fish, \
         powershell, zsh]; see tcptrace --help\n"
    );
}
