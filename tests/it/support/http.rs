//! An HTTP server that says what it is told to.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use pooler::demo::process::wait_until;

use super::raw::PATIENCE;

/// How a request is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// With this body.
    Body(String),
    /// With these bytes.
    Raw(Vec<u8>),
    /// With this head, and bytes without end after it.
    Endless(&'static str),
    /// Not at all: the connection is closed.
    Nothing,
    /// Not at all, and the connection stays open.
    Silence,
}

/// The server; its threads end with the test.
#[derive(Debug)]
pub struct Http {
    /// Where it listens at 127.0.0.1.
    pub port: u16,
    answer: Arc<Mutex<Answer>>,
    requests: Arc<AtomicUsize>,
}

impl Http {
    /// Answers like this until told otherwise.
    pub fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answer, requests) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let (of_thread, counter) = (Arc::clone(&answer), Arc::clone(&requests));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, counter) = (of_thread.lock().unwrap().clone(), Arc::clone(&counter));
                thread::spawn(move || serve(stream.unwrap(), answer, &counter));
            }
        });
        Self { port, answer, requests }
    }

    /// Answers like this from now on; returns when a client has been answered so.
    pub fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
        let before = self.requests.load(SeqCst);
        // One may have been under way, and the last of them began when the one before had its answer.
        let met = wait_until(4 * PATIENCE, || (self.requests.load(SeqCst) >= before + 3).then_some(()));
        assert!(met.is_some(), "nobody asks");
    }
}

fn serve(mut stream: TcpStream, answer: Answer, requests: &AtomicUsize) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => request.extend(byte),
            _ => return,
        }
    }
    let request = String::from_utf8(request).unwrap();
    assert!(request.starts_with("GET /cluster HTTP/1.1\r\n"), "{request}");
    requests.fetch_add(1, SeqCst);
    // A client that has enough may close the connection.
    let _ = match answer {
        Answer::Body(body) => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length:";
            stream.write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes())
        }
        Answer::Raw(bytes) => stream.write_all(&bytes),
        Answer::Endless(head) => {
            let mut result = stream.write_all(head.as_bytes());
            while result.is_ok() {
                result = stream.write_all(&[b' '; 4096]);
            }
            result
        }
        Answer::Nothing => Ok(()),
        Answer::Silence => {
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            stream.read(&mut byte).map(|_| ())
        }
    };
}
