//! accept() inside the kernel, without a process that calls it.

use std::fs;
use std::path::{Path, PathBuf};

use tests::traffic::*;
use tests::{Lab, eventually};

/// Configuration of the kernel's iSCSI target.
const TARGET: &str = "/sys/kernel/config/target";

/// An iSCSI target with a portal, on which a kernel thread listens and accepts.
struct Portal {
    /// The created folders, removed in reverse order.
    folders: Vec<PathBuf>,
    /// The thread's id.
    pid: u32,
}

impl Portal {
    const THREAD: &str = "iscsi_np";

    /// Returns `None` if the kernel has no iSCSI target.
    fn open(port: u16) -> Option<Portal> {
        if !Path::new(TARGET).exists() {
            eprintln!("skipped: no kernel thread to accept, {TARGET} is missing");
            return None;
        }
        let mut portal = Portal {
            folders: vec![],
            pid: 0,
        };
        let mut folder = PathBuf::from(TARGET);
        let name = format!("iqn.2003-01.org.example:tcptrace{port}");
        let at = format!("127.0.0.1:{port}");
        for step in ["iscsi", &name, "tpgt_1", "np", &at] {
            folder.push(step);
            // Other folders may belong to another iSCSI target, or are created by the kernel.
            if !folder.exists() {
                fs::create_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
                portal.folders.push(folder.clone());
            }
        }
        portal.pid = eventually("a kernel thread to wait in accept()", || {
            processes().find(|pid| {
                let file = |name| fs::read_to_string(format!("/proc/{pid}/{name}"));
                file("comm").is_ok_and(|it| it.trim_end() == Portal::THREAD)
                    && file("wchan").is_ok_and(|it| it == "inet_csk_accept")
            })
        });
        Some(portal)
    }
}

impl Drop for Portal {
    fn drop(&mut self) {
        for folder in self.folders.iter().rev() {
            // Another target may have added something to `iscsi` meanwhile.
            let _ = fs::remove_dir(folder);
        }
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[test]
fn an_accept_by_a_kernel_thread_is_attributed_to_the_thread() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let Some(portal) = Portal::open(port) else {
        return;
    };
    let client = connect(port);
    let client_port = port_of(&client);
    wait_for_the_other_end(&client);
    // The thread waits for the initiator's first bytes. Without them it closes, too.
    drop(client);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let server = trace.server();
    server.shows(&[("rport", &client_port), ("complete", &true)]);
    if trace.accept_attach_method() == "syscall" {
        assert!(trace.accepts().is_empty());
        server.shows(&[
            ("verdict", &"unknown"),
            (
                "reason",
                &"a process had it, but no accept() of it was seen",
            ),
        ]);
        let unseen = trace.session()["unseen"].to_string();
        assert!(unseen.contains("inside the kernel"), "{unseen}");
        return;
    }
    trace.accept().shows(&[
        ("pid", &portal.pid),
        ("tid", &portal.pid),
        ("comm", &Portal::THREAD),
        ("conn", &server["conn"]),
        ("listener", &trace.listen()["conn"]),
    ]);
    server.shows(&[("verdict", &"awaited"), ("comm", &Portal::THREAD)]);
}
