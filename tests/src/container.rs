//! Real containers of containerd and Podman. They use folders of the scenario in place of the
//! runtimes' own, and nothing of the machine's containers.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::eventually;
use crate::mounts;
use crate::run::{Running, helper_path};

/// The folders of the runtimes' files. In the processes of a scenario, each is a folder of its
/// own.
const FOLDERS: [&str; 3] = ["/run/containerd", "/run/containers", "/var/lib/containers"];

/// A container runtime.
pub enum Runtime {
    /// With the daemon.
    Containerd(Running),
    Podman,
}

/// A runtime with its files.
pub struct Runtimes {
    folder: PathBuf,
    runtime: Runtime,
}

/// A running container. It ends with its standard input.
pub struct Container {
    pub id: String,
    running: Running,
}

impl Runtimes {
    /// Starts containerd. `None` if it is not installed.
    pub fn containerd(folder: &Path) -> Option<Runtimes> {
        let mut runtimes = Runtimes::prepare(folder, &["containerd", "ctr", "runc"])?;
        let config = folder.join("containerd.toml");
        let text = "version = 2\nroot = 'ROOT'\nstate = '/run/containerd'\n\
                    [grpc]\naddress = '/run/containerd/containerd.sock'\n";
        let root = folder.join("containerd");
        let text = text.replace("ROOT", root.to_str().expect("a name"));
        fs::write(&config, text).expect("write a file");
        let mut daemon = Command::new("containerd");
        daemon.arg("-c").arg(config);
        runtimes.put(&mut daemon);
        runtimes.runtime = Runtime::Containerd(Running::start(daemon));
        let socket = folder.join("run/containerd/containerd.sock");
        eventually("containerd to listen", || socket.exists().then_some(()));
        Some(runtimes)
    }

    /// Prepares Podman. `None` if it is not installed.
    pub fn podman(folder: &Path) -> Option<Runtimes> {
        Runtimes::prepare(folder, &["podman", "conmon", "runc"])
    }

    /// Makes the folders. `None` if a program is not installed.
    fn prepare(folder: &Path, programs: &[&str]) -> Option<Runtimes> {
        for program in programs {
            let mut command = Command::new(program);
            command.arg("--version").stdout(Stdio::null());
            if command.status().is_err() {
                eprintln!("skipped: {program} is not installed");
                return None;
            }
        }
        for path in FOLDERS {
            fs::create_dir_all(path).expect("a folder");
            fs::create_dir_all(folder.join(&path[1..])).expect("a folder");
        }
        make_root(&folder.join("root"));
        Some(Runtimes {
            folder: folder.to_owned(),
            runtime: Runtime::Podman,
        })
    }

    /// Lets a command's process see the files of these runtimes in place of the machine's.
    pub fn put(&self, command: &mut Command) {
        let path = |path: PathBuf| CString::new(path.into_os_string().into_vec()).expect("a path");
        let bind = |at: &str| (path(self.folder.join(&at[1..])), path(at.into()));
        mounts::bind(command, FOLDERS.map(bind).to_vec());
    }

    /// Starts a container in this network namespace, with annotations. Its process makes a
    /// connection to itself at `port` when it is asked. The container's name is `name` where the
    /// runtime has names.
    pub fn run(&self, name: &str, annotations: &[(&str, &str)], port: u16) -> Container {
        let annotations = annotations
            .iter()
            .map(|(key, value)| format!("{key}={value}"));
        let annotations: Vec<_> = annotations
            .flat_map(|it| ["--annotation".into(), it])
            .collect();
        let root = self.folder.join("root");
        let (mut command, id_file) = match self.runtime {
            Runtime::Containerd(_) => {
                let mut command = Command::new("ctr");
                command
                    .args(["run", "--rm", "--net-host"])
                    .args(annotations);
                (command, None)
            }
            Runtime::Podman => {
                let id_file = self.folder.join(format!("{name}.id"));
                let mut command = podman();
                command.args(["run", "--rm", "--interactive", "--network", "host"]);
                // The default limits need more privileges than a sandbox may give.
                command.args([
                    "--ulimit",
                    "nofile=1024:1024",
                    "--ulimit",
                    "nproc=4096:4096",
                ]);
                command.args(["--name", name, "--cidfile"]).arg(&id_file);
                command.args(annotations);
                (command, Some(id_file))
            }
        };
        command.arg("--rootfs").arg(root);
        let mut id = random_id();
        if id_file.is_none() {
            command.arg(&id);
        }
        let port = port.to_string();
        command.args(["/tests-helper", "talk-when-asked", &port]);
        command.stdin(Stdio::piped());
        self.put(&mut command);
        let running = Running::start(command);
        let runs = |lines: &[String]| (!lines.is_empty()).then_some(());
        running.stdout().wait_until("a container to run", runs);
        if let Some(id_file) = id_file {
            id = fs::read_to_string(id_file).expect("the id");
        }
        Container { id, running }
    }
}

impl Container {
    /// Lets the container's process make a connection to itself.
    pub fn talk(&mut self) {
        self.running.write_line();
    }

    /// Ends the container.
    pub fn end(self) {
        let ended = self.running.wait_without_input();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
}

impl Drop for Runtimes {
    fn drop(&mut self) {
        match &mut self.runtime {
            Runtime::Containerd(daemon) => {
                daemon.signal(Signal::SIGTERM);
                eventually("containerd to end", || (!daemon.is_running()).then_some(()));
            }
            Runtime::Podman => {
                let mut remove = podman();
                remove.args(["rm", "--all", "--force", "--time", "0"]);
                self.put(&mut remove);
                Running::run_to_end(remove);
            }
        }
    }
}

fn podman() -> Command {
    let mut podman = Command::new("podman");
    podman.args(["--cgroup-manager", "cgroupfs", "--runtime", "runc"]);
    podman.args(["--storage-driver", "vfs"]);
    podman
}

/// Makes a root directory with the helper and the libraries that it loads.
fn make_root(root: &Path) {
    for folder in ["proc", "sys", "dev", "etc", "run", "tmp"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    fs::copy(helper_path(), root.join("tests-helper")).expect("copy the helper");
    // Fails for a static program.
    let ldd = Command::new("ldd").arg(helper_path()).output();
    let libraries = ldd.map(|it| it.stdout).unwrap_or_default();
    let libraries = String::from_utf8_lossy(&libraries);
    for library in libraries
        .split_whitespace()
        .filter(|it| it.starts_with('/'))
    {
        let copy = root.join(&library[1..]);
        fs::create_dir_all(copy.parent().expect("a folder")).expect("a folder");
        fs::copy(library, copy).expect("copy a library");
    }
}

/// Returns an id of 64 hexadecimal digits, as containerd's clients make them.
fn random_id() -> String {
    let half = || fs::read_to_string("/proc/sys/kernel/random/uuid").expect("a UUID");
    (half() + &half()).replace(['-', '\n'], "")
}
