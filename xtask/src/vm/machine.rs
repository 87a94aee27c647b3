//! Boots a VM for one job, and reads its console.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufRead as _, BufReader, BufWriter},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{Kernel, Programs, build::libraries, initramfs::Initramfs};
use crate::cmd;

/// Timeout for a boot, which takes three seconds, or ten of an arm64, if the machine has nothing else
/// to do.
const BOOT: Duration = Duration::from_secs(60);

/// Memory in MiB. The scenarios keep whole traces; the host provides only the used part.
const MEMORY: &str = "2048";

/// Messages of a kernel that has failed.
const TROUBLE: [&str; 6] = [
    "Kernel panic",
    "BUG: ",
    "Oops: ",
    "watchdog: BUG: soft lockup",
    "self-detected stall",
    "blocked for more than",
];

/// A job for a VM.
pub struct Job {
    /// Program and arguments.
    pub words: Vec<OsString>,
    /// Added to the environment, as `NAME=value`.
    pub environment: Vec<String>,
    pub timeout: Duration,
}

/// Runs a job in a VM. Returns its exit code. `show` gets each line of its stdout and stderr.
///
/// # Errors
/// If the kernel panics, stalls or is silent for too long. The message has its last lines.
pub fn run(
    root: &Path,
    kernel: &Kernel,
    programs: &Programs,
    job: &Job,
    mut show: impl FnMut(&str),
) -> Result<u8> {
    let folder = root.join("target/vm/run");
    fs::create_dir_all(&folder)?;
    // Other VMs, of this process or others, may run at the same time.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let initrd = folder.join(format!("{}-{n}.cpio", std::process::id()));
    write_initramfs(&initrd, kernel, programs, job)
        .with_context(|| format!("cannot write {}", initrd.display()))?;
    let ended = boot(kernel, &initrd, job, &mut show);
    fs::remove_file(&initrd)?;
    ended
}

fn write_initramfs(path: &Path, kernel: &Kernel, programs: &Programs, job: &Job) -> Result<()> {
    let mut archive = Initramfs::new(BufWriter::new(File::create(path)?))?;
    for (name, program) in programs {
        let name = match name.as_str() {
            "vm-init" => "init".to_owned(),
            name => format!("bin/{name}"),
        };
        archive.copy(&name, program)?;
    }
    for (path, file) in libraries(kernel.arch, programs)? {
        archive.copy_with_folder(&path, &file)?;
    }
    for module in &kernel.modules {
        let name = module.file_name().context("a module has a name")?;
        archive.copy(&format!("modules/{}", name.display()), module)?;
    }
    let environment = job.environment.iter().map(String::as_bytes);
    let words = job.words.iter().map(|word| word.as_bytes());
    // The environment, an empty line, the words. None of them contains a line break.
    let lines: Vec<&[u8]> = environment.chain([&b""[..]]).chain(words).collect();
    archive.file("etc/job", &lines.join(&b'\n'))?;
    archive.finish()?;
    Ok(())
}

fn boot(kernel: &Kernel, initrd: &Path, job: &Job, show: &mut impl FnMut(&str)) -> Result<u8> {
    let start = Instant::now();
    let mut qemu = Command::new(kernel.arch.qemu());
    qemu.args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"])
        // Software emulation works on every machine. One thread emulates both CPUs. With two
        // threads, a CPU can run into the other's half-finished patching of the kernel's text: an
        // `int3` oops when tracepoints are switched under load, and soft lockups.
        .args(["-accel", "tcg,thread=single", "-smp", "2", "-m", MEMORY])
        .args(kernel.arch.machine())
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd)
        .args(["-serial", "stdio", "-append"])
        .arg(kernel.arch.command_line())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let child = qemu
        .spawn()
        .with_context(|| format!("cannot start `{}`", cmd::line(&qemu)))?;
    let mut child = Killed(child);
    let console = child.0.stdout.take().context("no pipe to QEMU")?;

    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line)
                .trim_end_matches('\r')
                .to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });

    let mut last: Vec<String> = vec![];
    let mut begun = false;
    loop {
        let limit = if begun { job.timeout } else { BOOT };
        let left = limit.saturating_sub(start.elapsed());
        let line = match lines.recv_timeout(left) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                let what = if begun {
                    "the job hangs"
                } else {
                    "it does not boot"
                };
                bail!(
                    "Linux {}: {what} after {} s{}",
                    kernel.name(),
                    limit.as_secs(),
                    tail(&last)
                );
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!(
                    "Linux {}: QEMU ended before the job{}",
                    kernel.name(),
                    tail(&last)
                );
            }
        };
        if TROUBLE.iter().any(|trouble| line.contains(trouble)) {
            // Waits for the lines that show where it failed.
            thread::sleep(Duration::from_millis(500));
            let more: Vec<String> = lines.try_iter().take(12).collect();
            bail!("Linux {}: {line}{}", kernel.name(), tail(&more));
        }
        // The firmware's last output shares a line with the init's first.
        if line.ends_with("vm-begin") {
            begun = true;
            // Errors from now on are not about the boot.
            last.clear();
            continue;
        }
        if let Some(code) = line.strip_prefix("vm-exit: ") {
            return code.parse().context("the init has printed an unknown line");
        }
        if begun {
            show(&line);
        }
        if last.len() == 12 {
            last.remove(0);
        }
        last.push(line);
    }
}

/// Formats the last lines of a console for an error. Removes control characters, because the
/// firmware's would clear the screen.
fn tail(lines: &[String]) -> String {
    let printable = |line: &String| line.replace(char::is_control, "");
    let lines = lines.iter().map(printable);
    lines.map(|line| format!("\n    {line}")).collect()
}

/// A child process that is killed when its handle is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
