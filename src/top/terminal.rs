//! The terminal: keys come in and the picture goes out here; a thread of its own asks the console.

use std::{
    io,
    sync::mpsc::{self, Receiver, Sender, TryRecvError},
    time::Duration,
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use super::{
    LOGIN,
    app::{App, Next},
    draw,
    sample::{Console, Sample},
    text::clean,
};
use crate::cli::target::Target;

/// Keys are looked for so often while nothing else happens.
const LOOK: Duration = Duration::from_millis(100);
/// Between logins at a console that is gone.
const RETRY: Duration = Duration::from_secs(1);

enum News {
    Sample(Box<Sample>),
    Lost(String),
    /// The process is to end.
    Stop,
}

/// Shows it until somebody leaves.
pub(super) fn run(mut app: App, console: Console, target: Target, runtime: Runtime) -> io::Result<()> {
    let (tell, news) = mpsc::channel();
    let interval = app.interval;
    // It ends with the process, or when nobody listens any more.
    std::thread::spawn(move || runtime.block_on(ask(console, target, interval, tell)));
    let mut terminal = ratatui::try_init()?;
    let result = show(&mut terminal, &mut app, &news);
    ratatui::restore();
    result
}

fn show(terminal: &mut DefaultTerminal, app: &mut App, news: &Receiver<News>) -> io::Result<()> {
    let mut changed = true;
    loop {
        if std::mem::take(&mut changed) {
            terminal.draw(|frame| draw::draw(frame, app))?;
        }
        loop {
            match news.try_recv() {
                Ok(News::Sample(sample)) => app.take(*sample),
                Ok(News::Lost(why)) => app.lose(why),
                Ok(News::Stop) => return Ok(()),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    return Err(io::Error::other("nobody asks the console any more"));
                }
            }
            changed = true;
        }
        if !changed && event::poll(LOOK)? {
            match event::read()? {
                Event::Key(key) if app.key(key) == Next::Quits => return Ok(()),
                // Also a size that is another now.
                _ => changed = true,
            }
        }
    }
}

/// Asks again and again, and logs in again where that is needed.
async fn ask(console: Console, target: Target, interval: Duration, tell: Sender<News>) {
    let work = async {
        let mut console = Some(console);
        loop {
            let (news, pause) = match look(&mut console, &target).await {
                Ok(sample) => (News::Sample(Box::new(sample)), interval),
                Err(why) => {
                    console = None;
                    (News::Lost(clean(&why)), RETRY)
                }
            };
            if tell.send(news).is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = stopped() => {
            // Nobody may listen any more.
            let _ = tell.send(News::Stop);
        }
    }
}

async fn look(console: &mut Option<Console>, target: &Target) -> Result<Sample, String> {
    let console = match console {
        Some(console) => console,
        None => {
            let session = target.connect(LOGIN).await.map_err(|error| error.to_string())?;
            console.insert(Console::new(session))
        }
    };
    console.sample().await.map_err(|error| error.to_string())
}

/// The terminal has to be as it was when the process is ended.
async fn stopped() {
    let kinds = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()];
    let mut signals: Vec<_> = kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect();
    std::future::poll_fn(|context| {
        let ready = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
