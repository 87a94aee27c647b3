//! The load of the soak: containers that come and go, each with listeners that come and go, and
//! connections between them.

use std::{
    collections::VecDeque,
    fs::{self, File},
    hash::{BuildHasher as _, RandomState},
    io::{Read as _, Write as _},
    os::fd::{AsRawFd as _, OwnedFd},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::member::Order;

/// Ports of the listeners, below those of clients.
const FIRST_PORT: u16 = 10_000;

/// Number of ports. Each is used once in a run.
pub const PORTS: usize = 10_000;

/// Containers at a time.
pub const CONTAINERS: usize = 200;

/// Containers in a run, one after the other, in the place of one.
const GENERATIONS: usize = 5;

/// Listeners at a time in a container.
pub const LISTENING: usize = 5;

/// Listeners of a container in its life.
const LISTENERS: usize = PORTS / CONTAINERS / GENERATIONS;

/// Containers in a pod.
const IN_A_POD: usize = 2;

/// How long some clients keep their connection, in milliseconds.
const HELD_MS: u32 = 30_000;

/// The directory in which containerd would keep its containers.
const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";

/// A running container.
struct Container {
    child: Child,
    cgroup: PathBuf,
    bundle: PathBuf,
    /// Ports with a listener, the oldest first.
    ports: VecDeque<u16>,
    /// Listeners so far.
    opened: usize,
}

/// The place of one container after the other.
#[derive(Default)]
struct Place {
    container: Option<Container>,
    /// Time of the next change, since the start.
    next: Duration,
    generation: usize,
}

/// The counts of a storm.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Connections that were ordered.
    pub ordered: u64,
    /// Connections that members have made; known only after their end.
    pub made: u64,
    pub failed: u64,
    pub listeners: u64,
    pub containers: u64,
}

pub struct Storm {
    places: Vec<Place>,
    /// Time between two changes of a container.
    step: Duration,
    cgroups: PathBuf,
    next_port: u16,
    random: u64,
    pub counts: Counts,
}

/// Makes a mount namespace for this process in which the files of container runtimes are those of
/// the soak.
pub fn hide_containers() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none)
        .context("cannot mount a tmpfs")?;
    Ok(fs::create_dir_all(BUNDLES)?)
}

impl Storm {
    /// Prepares a storm that opens all its ports in this time.
    pub fn new(time: Duration) -> Result<Storm> {
        let cgroups = cgroup2()?.join(format!("tcptrace-soak-{}", std::process::id()));
        fs::create_dir(&cgroups).with_context(|| format!("cannot make {}", cgroups.display()))?;
        // A container begins with some listeners. Each later step opens one more, and the last one
        // ends the container.
        let steps = (GENERATIONS * (LISTENERS - LISTENING + 1)) as u32;
        let step = time / steps;
        let offset = |n: usize| (step * (n as u32)) / CONTAINERS as u32;
        let places = (0..CONTAINERS).map(|n| Place {
            next: offset(n),
            ..Place::default()
        });
        let mut storm = Storm {
            places: places.collect(),
            step,
            cgroups,
            next_port: FIRST_PORT,
            random: RandomState::new().hash_one(0) | 1,
            counts: Counts::default(),
        };
        for n in 0..CONTAINERS {
            storm.start(n)?;
            storm.places[n].next += step;
        }
        Ok(storm)
    }

    /// Opens and closes what is due so long after the start, and makes so many connections.
    pub fn blow(&mut self, elapsed: Duration, connections: u32) -> Result<()> {
        for n in 0..CONTAINERS {
            if self.places[n].next <= elapsed {
                self.change(n)?;
                self.places[n].next += self.step;
            }
        }
        for _ in 0..connections {
            self.connect()?;
        }
        Ok(())
    }

    /// Lets one container sleep, so that the connections in its queues wait.
    pub fn delay(&mut self, ms: u32) -> Result<()> {
        let n = self.random(CONTAINERS);
        self.order(n, Order::Sleep(ms))
    }

    /// Ends all containers.
    pub fn end(&mut self) -> Result<Counts> {
        for n in 0..CONTAINERS {
            self.stop(n)?;
        }
        Ok(self.counts)
    }

    fn change(&mut self, n: usize) -> Result<()> {
        let container = self.places[n].container.as_mut();
        match container.filter(|it| it.opened < LISTENERS) {
            Some(container) => {
                let oldest = container.ports.pop_front();
                self.open(n)?;
                oldest.map_or(Ok(()), |port| self.order(n, Order::Close(port)))
            }
            None => {
                self.stop(n)?;
                self.start(n)
            }
        }
    }

    fn start(&mut self, n: usize) -> Result<()> {
        let place = &mut self.places[n];
        place.generation += 1;
        let id = format!("{:064x}", ((place.generation as u128) << 64) | n as u128);
        let cgroup = self.cgroups.join(format!("cri-containerd-{id}.scope"));
        let bundle = Path::new(BUNDLES).join(&id);
        fs::create_dir(&cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
        fs::create_dir(&bundle)?;
        let annotations = serde_json::json!({
            "io.kubernetes.cri.container-name": format!("app-{}", n % IN_A_POD),
            "io.kubernetes.cri.sandbox-name": format!("pod-{}-{}", n / IN_A_POD, place.generation),
            "io.kubernetes.cri.sandbox-namespace": "soak",
        });
        let config = serde_json::json!({ "annotations": annotations }).to_string();
        fs::write(bundle.join("config.json"), config)?;
        let procs = File::options()
            .write(true)
            .open(cgroup.join("cgroup.procs"));
        let procs = OwnedFd::from(procs.context("no file for processes in a cgroup")?);
        // Still this program after a new build of it.
        let mut command = Command::new("/proc/self/exe");
        command.args(["soak", "member"]).env_clear();
        command.env("CARGO_MANIFEST_DIR", "/xtask");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: write() is async-signal-safe, and the descriptor is open.
        unsafe {
            command.pre_exec(move || {
                let written = libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1);
                match written {
                    1 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let child = crate::process::spawn(&mut command)?;
        self.places[n].container = Some(Container {
            child,
            cgroup,
            bundle,
            ports: VecDeque::new(),
            opened: 0,
        });
        self.counts.containers += 1;
        for _ in 0..LISTENING {
            self.open(n)?;
        }
        Ok(())
    }

    fn stop(&mut self, n: usize) -> Result<()> {
        let Some(mut container) = self.places[n].container.take() else {
            return Ok(());
        };
        drop(container.child.stdin.take());
        let mut said = String::new();
        if let Some(mut stdout) = container.child.stdout.take() {
            stdout.read_to_string(&mut said)?;
        }
        let status = container.child.wait()?;
        let numbers: Option<Vec<u64>> = said.split_whitespace().map(|it| it.parse().ok()).collect();
        let Some([made, failed]) = numbers.as_deref() else {
            bail!("a process of the soak ended, {status}: {said:?}");
        };
        self.counts.made += made;
        self.counts.failed += failed;
        fs::remove_dir_all(&container.bundle)?;
        // The kernel may still be removing the process.
        let began = Instant::now();
        while fs::remove_dir(&container.cgroup).is_err() {
            if began.elapsed() > Duration::from_secs(10) {
                bail!("cannot remove {}", container.cgroup.display());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn open(&mut self, n: usize) -> Result<()> {
        let port = self.next_port;
        let last = FIRST_PORT + (PORTS - 1) as u16;
        self.next_port = if port == last { FIRST_PORT } else { port + 1 };
        if let Some(container) = &mut self.places[n].container {
            container.ports.push_back(port);
            container.opened += 1;
        }
        self.counts.listeners += 1;
        self.order(n, Order::Open(port))
    }

    /// Lets a container connect to a listener of another one, or of itself.
    fn connect(&mut self) -> Result<()> {
        let (client, server) = (self.random(CONTAINERS), self.random(CONTAINERS));
        let kind = self.random(50);
        let listener = self.random(LISTENING);
        let server = self.places[server].container.as_ref();
        let Some(port) = server.and_then(|it| it.ports.get(listener).copied()) else {
            return Ok(());
        };
        let order = match kind {
            0 => Order::Connect(port, HELD_MS),
            1..=3 => Order::Reset(port),
            _ => Order::Connect(port, 0),
        };
        self.counts.ordered += 1;
        self.order(client, order)
    }

    fn order(&mut self, n: usize, order: Order) -> Result<()> {
        let Some(container) = &mut self.places[n].container else {
            return Ok(());
        };
        let stdin = container.child.stdin.as_mut().context("it has ended")?;
        let written = stdin.write_all(order.text().as_bytes());
        written.with_context(|| format!("container {n} has ended"))
    }

    /// Returns a number below `end` (xorshift).
    fn random(&mut self, end: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % end as u64) as usize
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        // After a failure, the members that are left end with their standard input.
        for place in &mut self.places {
            if let Some(mut container) = place.container.take() {
                drop(container.child.stdin.take());
                let _ = container.child.wait();
                let _ = fs::remove_dir(&container.cgroup);
            }
        }
        let _ = fs::remove_dir(&self.cgroups);
    }
}

/// Returns the mount point of cgroup v2.
fn cgroup2() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mount = mounts.lines().find_map(|line| {
        let (place, what) = line.split_once(" - ")?;
        what.starts_with("cgroup2 ")
            .then(|| place.split(' ').nth(4))?
    });
    mount
        .map(PathBuf::from)
        .context("cgroups of version 2 are not mounted")
}
