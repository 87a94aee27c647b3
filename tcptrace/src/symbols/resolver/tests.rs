use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tcptrace_ebpf::abi;

use super::*;

/// The running program `fixture.rs`.
struct Fixture {
    child: Child,
    /// An address in `save_state`, which is inlined into `handle_request`.
    address: u64,
    folder: tempfile::TempDir,
}

impl Fixture {
    /// Compiles and starts the program.
    fn start(options: &[&str]) -> Fixture {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/symbols/resolver/fixture.rs");
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("fixture");
        let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
        let done = Command::new(rustc)
            .args(["--edition=2024", "-Copt-level=1"])
            .args(options)
            .arg("-o")
            .args([&program, &source])
            .status();
        assert!(done.unwrap().success());
        let mut child = Command::new(&program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let address = u64::from_str_radix(line.trim(), 16).unwrap();
        Fixture {
            child,
            address,
            folder,
        }
    }

    fn stack(&self) -> RawStack {
        raw(self.child.id(), self.address)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn raw(pid: u32, address: u64) -> RawStack {
    let mut addresses = abi::Stack {
        kernel: [0; abi::KERNEL_FRAMES],
        user: [0; abi::USER_FRAMES],
    };
    addresses.user[0] = address;
    RawStack {
        key: StackKey(1),
        pid,
        addresses: Box::new(addresses),
    }
}

/// Returns the functions of the user stack: name, line, inlined.
fn functions(stack: &Stack) -> Vec<(Option<&str>, Option<u32>, bool)> {
    let all = stack.user.iter();
    all.map(|it| (it.function.as_deref(), it.line, it.inlined))
        .collect()
}

const SAVE: &str = "fixture::save_state";
const HANDLE: &str = "fixture::handle_request";

/// Returns the number of the source's first line that contains `text`.
fn line(text: &str) -> Option<u32> {
    let source = include_str!("fixture.rs");
    let index = source.lines().position(|line| line.contains(text));
    index.map(|index| index as u32 + 1)
}

#[test]
fn debug_information_gives_functions_lines_and_inlined_calls() {
    let fixture = Fixture::start(&["-g"]);
    let mut resolver = Resolver::new();
    let stack = resolver.resolve(&fixture.stack());
    let here = match cfg!(target_arch = "x86_64") {
        true => line("lea"),
        false => line("adr"),
    };
    assert_eq!(
        functions(&stack),
        [
            (Some(SAVE), here, true),
            (Some(HANDLE), line("save_state())"), false)
        ]
    );
    for frame in &stack.user {
        assert_eq!(frame.module.as_deref(), Some("fixture"));
        assert!(
            frame
                .file
                .as_deref()
                .unwrap()
                .ends_with("resolver/fixture.rs")
        );
        assert_eq!(frame.address, fixture.address);
    }
}

#[test]
fn compressed_debug_information_gives_the_same() {
    let fixture = Fixture::start(&["-g", "-Clink-arg=-Wl,--compress-debug-sections=zlib"]);
    let stack = Resolver::new().resolve(&fixture.stack());
    let names: Vec<_> = functions(&stack)
        .into_iter()
        .map(|(name, ..)| name)
        .collect();
    assert_eq!(names, [Some(SAVE), Some(HANDLE)]);
}

#[test]
fn symbols_give_the_function_without_debug_information() {
    let fixture = Fixture::start(&["-Cdebuginfo=0"]);
    let stack = Resolver::new().resolve(&fixture.stack());
    assert_eq!(functions(&stack), [(Some(HANDLE), None, false)]);
}

#[test]
fn a_stripped_program_gives_the_module_or_the_perf_map() {
    let fixture = Fixture::start(&["-Cstrip=symbols"]);
    let mut resolver = Resolver::new();
    let stack = resolver.resolve(&fixture.stack());
    assert_eq!(functions(&stack), [(None, None, false)]);
    assert_eq!(stack.user[0].module.as_deref(), Some("fixture"));
    // A runtime's own names.
    let path = format!("/tmp/perf-{}.map", fixture.child.id());
    std::fs::write(&path, format!("{:x} 10 py::handle\n", fixture.address)).unwrap();
    let stack = resolver.resolve(&fixture.stack());
    std::fs::remove_file(path).unwrap();
    assert_eq!(functions(&stack), [(Some("py::handle"), None, false)]);
}

#[test]
fn a_prepared_process_is_known_after_its_end() {
    let mut fixture = Fixture::start(&["-Cdebuginfo=0"]);
    let mut resolver = Resolver::new();
    let pid = fixture.child.id();
    for mapping in resolver.prepare(pid) {
        resolver.read(pid, &mapping);
    }
    fixture.child.kill().unwrap();
    fixture.child.wait().unwrap();
    std::fs::remove_dir_all(fixture.folder.path()).unwrap();
    let stack = resolver.resolve(&fixture.stack());
    assert_eq!(functions(&stack), [(Some(HANDLE), None, false)]);
}

#[test]
fn an_unknown_process_gives_addresses() {
    let stack = raw(u32::MAX, 0x1234);
    let resolved = Resolver::new().resolve(&stack);
    assert_eq!(resolved, stack.unresolved());
    assert_eq!(resolved.user[0].address, 0x1234);
    assert_eq!(functions(&resolved), [(None, None, false)]);
}

#[test]
fn kernel_functions_have_names_unless_they_are_hidden() {
    let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap();
    let schedule = symbols
        .lines()
        .find_map(|line| line.strip_suffix(" T schedule"));
    let schedule = u64::from_str_radix(schedule.unwrap(), 16).unwrap();
    let mut stack = raw(u32::MAX, 0);
    // The second address is a return address.
    (stack.addresses.kernel[0], stack.addresses.kernel[1]) = (schedule + 1, schedule + 1);
    let resolved = Resolver::new().resolve(&stack);
    let names: Vec<_> = resolved
        .kernel
        .iter()
        .map(|it| it.function.as_deref())
        .collect();
    match schedule {
        // The addresses are hidden.
        0 => assert_eq!(names, [None, None]),
        _ => assert_eq!(names, [Some("schedule"), Some("schedule")]),
    }
    let unseen = crate::symbols::unseen().join("\n");
    assert_eq!(unseen.contains("kernel functions"), schedule == 0);
}
