//! A way to a server that can be shut: connections wait in front of it.

use std::{
    io,
    net::{TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

#[derive(Debug, Default)]
struct State {
    shut: bool,
    connections: usize,
}

/// Passes connections on to a port at 127.0.0.1, unless it is shut. What has passed it is never held up.
#[derive(Debug)]
pub struct Gate {
    /// Where it listens at 127.0.0.1.
    pub port: u16,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Gate {
    /// Open, in front of this port.
    pub fn before(target: u16) -> Self {
        Self::at("127.0.0.1", 0, target)
    }

    /// The same at this address.
    pub fn at(address: &str, port: u16, target: u16) -> Self {
        let listener = TcpListener::bind((address, port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let of_thread = Arc::clone(&state);
        thread::spawn(move || {
            for outside in listener.incoming() {
                let state = Arc::clone(&of_thread);
                thread::spawn(move || pass(outside.unwrap(), target, &state));
            }
        });
        Self { port, state }
    }

    /// Connections that come from now on wait.
    pub fn shut(&self) {
        self.change(|state| state.shut = true);
    }

    /// Lets those pass that wait.
    pub fn open(&self) {
        self.change(|state| state.shut = false);
    }

    /// Waits until so many connections have come.
    pub fn wait_for(&self, connections: usize) {
        let (state, changed) = &*self.state;
        drop(changed.wait_while(state.lock().unwrap(), |s| s.connections < connections).unwrap());
    }

    /// Connections that have come.
    pub fn connections(&self) -> usize {
        self.state.0.lock().unwrap().connections
    }

    fn change(&self, how: impl FnOnce(&mut State)) {
        how(&mut self.state.0.lock().unwrap());
        self.state.1.notify_all();
    }
}

fn pass(outside: TcpStream, target: u16, state: &(Mutex<State>, Condvar)) {
    let (state, changed) = state;
    state.lock().unwrap().connections += 1;
    changed.notify_all();
    drop(changed.wait_while(state.lock().unwrap(), |s| s.shut).unwrap());
    let inside = TcpStream::connect(("127.0.0.1", target)).unwrap();
    let (from, to) = (outside.try_clone().unwrap(), inside.try_clone().unwrap());
    thread::spawn(move || copy(from, to));
    copy(inside, outside);
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    // Ends with either side.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Both);
}
