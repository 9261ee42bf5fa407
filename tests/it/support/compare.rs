//! The same script at PostgreSQL and through pooler: a client must not see a difference.

use super::{
    database::Database,
    pooler::Pooler,
    raw::{Chunks, Raw},
};

/// Settings of the pooler that scripts run through: one server, so that every leftover meets the next client.
const ONE_SERVER: &[&str] = &["default_pool_size = 1"];

/// Ways to cut what is sent.
const CUTS: [Chunks; 3] = [Chunks::Whole, Chunks::Of(1), Chunks::Of(7)];

/// A database, and pooler in front of it.
#[derive(Debug)]
pub struct Pair {
    /// Straight at PostgreSQL.
    pub database: Database,
    /// In front of it, with one server unless said otherwise.
    pub pooler: Pooler,
}

impl Pair {
    /// With one server in the pool.
    pub fn new() -> Self {
        Self::with(ONE_SERVER)
    }

    /// With these lines in `[pooler]`.
    pub fn with(settings: &[&str]) -> Self {
        let database = Database::new();
        let pooler = Pooler::of(&database, settings);
        Self { database, pooler }
    }

    /// Runs the script at PostgreSQL, then through pooler with each way of cutting it, and asserts that all it
    /// received is the same and that the server is as good as new for the next client.
    ///
    /// The script must leave the database as it found it, since it runs four times.
    pub fn same(&self, script: impl Fn(&mut Raw)) {
        let mut direct = self.database.connect();
        script(&mut direct);
        for chunks in CUTS {
            let mut pooled = self.pooler.connect();
            pooled.chunks = chunks;
            script(&mut pooled);
            assert_same(&lines(&pooled), &lines(&direct), chunks);
            drop(pooled);
            self.next_client_is_untouched();
        }
    }

    /// Another client gets the server, clean and in step.
    pub fn next_client_is_untouched(&self) {
        let mut next = self.pooler.connect();
        let rows =
            next.sql("SELECT 'mine', current_user, count(*) FROM pg_prepared_statements WHERE from_sql");
        assert_eq!(rows, ["mine|app|0"]);
    }
}

fn lines(raw: &Raw) -> Vec<String> {
    raw.received.iter().map(|frame| format!("{frame:?}")).collect()
}

/// Fails with the first difference and what came just before it.
fn assert_same(pooled: &[String], direct: &[String], chunks: Chunks) {
    let longest = pooled.len().max(direct.len());
    let Some(at) = (0..longest).find(|&i| pooled.get(i) != direct.get(i)) else { return };
    let show = |lines: &[String]| {
        lines.iter().skip(at).take(4).map(|line| format!("\n    {line}")).collect::<String>()
    };
    let before: String =
        direct[at.saturating_sub(6)..at].iter().map(|line| format!("\n    {line}")).collect();
    panic!(
        "message {at}, {chunks:?}: after{before}\n  PostgreSQL sent{}\n  pooler sent{}",
        show(direct),
        show(pooled)
    );
}
