//! Ctrl-C and SIGTERM for a program that mostly waits for its children.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use tokio::signal::unix::{SignalKind, signal};

/// Tells whether the operator wants to stop.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches SIGINT, SIGTERM and SIGHUP from now on.
    pub fn catch() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let (tell, ready) = mpsc::channel();
        let flag = asked.clone();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || listen(&flag, &tell))?;
        ready.recv().map_err(io::Error::other)??;
        Ok(Self(asked))
    }

    /// Whether one of them came.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn listen(asked: &AtomicBool, ready: &mpsc::Sender<io::Result<()>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error))),
    };
    runtime.block_on(async {
        let streams = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = streams else {
            return drop(ready.send(Err(io::Error::other("cannot catch signals"))));
        };
        let _ = ready.send(Ok(()));
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        asked.store(true, Ordering::Relaxed);
    });
}
