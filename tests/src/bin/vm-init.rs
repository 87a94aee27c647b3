//! PID 1 of a test VM. It loads kernel modules, mounts file systems, runs one job, prints its exit
//! code, and powers off.
//!
//! /etc/job has the job: `NAME=value` lines, an empty line, then the program and its arguments, one
//! per line (written by xtask/src/vm/machine.rs).

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::process::{Command, ExitStatus};

const MOUNTS: [(&str, &str); 9] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/tmp"),
    ("tracefs", "/sys/kernel/tracing"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("configfs", "/sys/kernel/config"),
];

/// The folder of the modules. The order of their names is the load order.
const MODULES: &str = "/modules";

fn main() {
    load_modules();
    for (kind, at) in MOUNTS {
        mount(kind, at);
    }
    bring_up_loopback();
    println!("vm-begin");
    let code = match run_job() {
        Ok(status) => exit_code(status),
        Err(error) => {
            println!("vm-init: {error}");
            127
        }
    };
    println!("vm-exit: {code}");
    // SAFETY: plain system calls; nothing is left to be saved.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
}

fn run_job() -> std::io::Result<ExitStatus> {
    let job = std::fs::read_to_string("/etc/job")?;
    let (environment, words) = job.split_once("\n\n").unwrap_or(("", job.trim_start()));
    let mut words = words.lines();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).env("PATH", "/bin");
    for (name, value) in environment.lines().filter_map(|line| line.split_once('=')) {
        command.env(name, value);
    }
    command.status()
}

fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Ignores errors: a program that needs the module reports its absence.
fn load_modules() {
    let folder = std::fs::read_dir(MODULES).into_iter().flatten().flatten();
    let mut modules: Vec<_> = folder.map(|entry| entry.path()).collect();
    modules.sort();
    for module in modules {
        let loaded = std::fs::File::open(&module).and_then(|file| finit_module(&file));
        if let Err(error) = loaded {
            println!("vm-init: {}: {error}", module.display());
        }
    }
}

fn finit_module(module: &std::fs::File) -> std::io::Result<()> {
    // SAFETY: the kernel reads the file and an empty C string.
    let result =
        unsafe { libc::syscall(libc::SYS_finit_module, module.as_raw_fd(), c"".as_ptr(), 0) };
    match result {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Ignores errors: a program that needs the file system reports its absence.
fn mount(kind: &str, at: &str) {
    // Most mount points are in the initramfs. Mount points inside other file systems must be
    // created here.
    let _ = std::fs::create_dir_all(at);
    let (kind, at) = (CString::new(kind).unwrap(), CString::new(at).unwrap());
    // SAFETY: two C strings, no data.
    unsafe {
        libc::mount(
            kind.as_ptr(),
            at.as_ptr(),
            kind.as_ptr(),
            0,
            std::ptr::null(),
        )
    };
}

fn bring_up_loopback() {
    // SAFETY: an ifreq of zeroes with a name and flags is what SIOCSIFFLAGS takes.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        libc::ioctl(socket, libc::SIOCSIFFLAGS, &request);
        libc::close(socket);
    }
}
