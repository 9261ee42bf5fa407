//! Runs the checks of one suite and prints `ok NAME`, `not ok NAME: why` and `note NAME: what` lines.
//!
//! DATABASE_URL is what is tested, DIRECT_URL is PostgreSQL itself, REPLICA_URL its replica if there is one: a read may
//! run there. POOL_SIZE is set when a pooler is in between: then a check may ask that servers were really shared.

use std::{collections::HashSet, error::Error, fmt::Display, future::Future, path::Path, time::Duration};

pub type Failure = Box<dyn Error + Send + Sync>;
pub type Outcome<T = ()> = Result<T, Failure>;

pub const CLIENTS: usize = 50;
pub const ROUNDS: usize = 20;
const CHECK_TIME: Duration = Duration::from_secs(60);

pub fn url() -> String {
    std::env::var("DATABASE_URL").expect("DATABASE_URL")
}

pub fn direct_url() -> String {
    std::env::var("DIRECT_URL").expect("DIRECT_URL")
}

/// PostgreSQL itself and its replica, if there is one.
pub fn node_urls() -> Vec<String> {
    std::iter::once(direct_url()).chain(std::env::var("REPLICA_URL").ok()).collect()
}

/// What changes behind the back of the pooler is seen at once with this; PostgreSQL takes it for any setting.
pub const STRICT: &str = "set pooler.read_consistency = 'strict'";

/// Server connections of the pool; 0 without a pooler.
pub fn pool_size() -> usize {
    std::env::var("POOL_SIZE").map_or(0, |text| text.parse().expect("POOL_SIZE"))
}

pub fn note(name: &str, what: impl Display) {
    println!("note {name}: {what}");
}

/// A text that only this client sends, of a length that varies from a few bytes to some KB.
pub fn marker(client: usize, turn: usize) -> String {
    format!("client {client} turn {turn} {}", "x".repeat(client * turn * 37 % 9000))
}

/// The transactions of many clients met several servers, and no more than the pool has.
pub fn servers_were_shared(pids: impl IntoIterator<Item = i32>) {
    let servers = pids.into_iter().collect::<HashSet<_>>().len();
    let size = pool_size();
    assert!(size == 0 || (servers > 1 && servers <= size), "{servers} servers for a pool of {size}");
}

/// Polls until `condition` holds; gives up after ten seconds.
pub async fn until<F: Future<Output = Outcome<bool>>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> Outcome {
    let poll = async {
        while !condition().await? {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(10), poll)
        .await
        .map_err(|_| format!("waited too long: {what}"))?
}

/// Waits until a server process is gone (it runs on this machine): its socket is closed then.
pub async fn server_exited(pid: i32) -> Outcome {
    until("the server exits", || async move { Ok(!Path::new(&format!("/proc/{pid}")).exists()) }).await
}

/// The checks of one program, all or those that the command line names.
pub struct Suite {
    only: Vec<String>,
    failed: usize,
}

impl Suite {
    #[expect(clippy::new_without_default, reason = "reads the command line")]
    pub fn new() -> Self {
        Self { only: std::env::args().skip(1).collect(), failed: 0 }
    }

    pub async fn check(&mut self, name: &str, check: impl Future<Output = Outcome> + Send + 'static) {
        if !self.only.is_empty() && !self.only.iter().any(|only| only == name) {
            return;
        }
        let task = tokio::spawn(check); // a task, so that a failed assertion is a value
        let abort = task.abort_handle();
        let why = match tokio::time::timeout(CHECK_TIME, task).await {
            Ok(Ok(Ok(()))) => return println!("ok {name}"),
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(panic)) => panic.to_string(),
            Err(_) => format!("still running after {CHECK_TIME:?}"),
        };
        abort.abort();
        self.failed += 1;
        println!("not ok {name}: {}", why.replace('\n', " "));
    }

    pub fn finish(self) -> ! {
        std::process::exit(i32::from(self.failed > 0))
    }
}

/// Names each check after its function.
#[macro_export]
macro_rules! run {
    ($($check:ident),+ $(,)?) => {
        #[tokio::main]
        async fn main() {
            let mut suite = $crate::Suite::new();
            $(suite.check(stringify!($check), $check()).await;)+
            suite.finish()
        }
    };
}
