// A server that is late to accept: for each connection it waits for a byte on its standard input.
// Built as a static program with frame pointers and debug information.

use std::io::Read;
use std::net::{TcpListener, TcpStream};

#[inline(always)]
fn read_state(state: &mut [u8; 1]) -> usize {
    std::io::stdin().read(state).expect("a byte")
}

#[inline(never)]
fn save_state() -> usize {
    let mut state = [0];
    std::hint::black_box(read_state(&mut state))
}

#[inline(never)]
fn handle_request(connection: TcpStream) -> usize {
    let saved = save_state();
    drop(connection);
    saved
}

fn main() {
    let port = std::env::args().nth(1).expect("a port");
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).expect("listen");
    println!("listening");
    while handle_request(listener.accept().expect("a connection").0) > 0 {}
}
