//! Realistic servers: one keeps up until it is busy, the other is always late.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::Duration,
};

use anyhow::Result;

pub struct Servers {
    prompt: TcpListener,
    late: TcpListener,
}

const MS: Duration = Duration::from_millis(1);

impl Servers {
    pub fn open() -> Result<Servers> {
        let any = "127.0.0.1:0";
        Ok(Servers {
            prompt: TcpListener::bind(any)?,
            late: TcpListener::bind(any)?,
        })
    }

    /// Returns both ports, for `-p`.
    pub fn ports(&self) -> String {
        let ports = [&self.prompt, &self.late].map(|it| it.local_addr().map(|it| it.port()));
        let ports: Vec<String> = ports
            .into_iter()
            .flatten()
            .map(|it| it.to_string())
            .collect();
        ports.join(",")
    }

    /// Runs some seconds of traffic.
    pub fn play(&self) -> Result<()> {
        let busy = AtomicBool::new(false);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                serve(&self.prompt, &over, || {
                    while busy.load(Ordering::Relaxed) {
                        sleep(MS);
                    }
                })
            });
            scope.spawn(|| serve(&self.late, &over, || sleep(9 * MS)));
            let played = self.call(&busy);
            over.store(true, Ordering::Relaxed);
            // Wakes each thread that waits in accept(), so that it sees the end.
            for server in [&self.prompt, &self.late] {
                drop(TcpStream::connect(server.local_addr()?));
            }
            played
        })
    }

    fn call(&self, busy: &AtomicBool) -> Result<()> {
        let mut open = vec![];
        for moment in 0u32..400 {
            // The prompt server hangs twice, for a fifth of a second.
            busy.store(
                (150..170).contains(&moment) || (290..310).contains(&moment),
                Ordering::Relaxed,
            );
            // More clients connect in the middle than at the beginning and the end.
            let crowd = 1 + (200 - moment.abs_diff(200)) / 60;
            for _ in 0..crowd {
                open.push(talk(&self.prompt)?);
            }
            if moment % 3 == 0 {
                open.push(talk(&self.late)?);
            }
            sleep(8 * MS);
            if open.len() > 20 {
                open.drain(..10).for_each(drop);
            }
        }
        busy.store(false, Ordering::Relaxed);
        drop(open);
        sleep(300 * MS);
        Ok(())
    }
}

fn talk(server: &TcpListener) -> Result<TcpStream> {
    let mut client = TcpStream::connect(server.local_addr()?)?;
    client.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    Ok(client)
}

fn serve(server: &TcpListener, over: &AtomicBool, before: impl Fn()) {
    while let Ok((mut client, _)) = server.accept() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let mut request = [0; 64];
        // An error of a client that has gone is ignored.
        let _ = client.read(&mut request);
        let _ = client.write_all(b"HTTP/1.0 204 No Content\r\n\r\n");
        drop(client);
        before();
    }
}
