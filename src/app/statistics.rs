//! The clock of the averages, and the line of statistics in the log.

use std::sync::Arc;

use tokio::time::Instant;

use crate::admin::commands::Commands;

/// Ends a period every stats_period, for ever.
pub(super) async fn keep(commands: Arc<Commands>) {
    let mut reloads = commands.reloads();
    let mut begun = Instant::now();
    loop {
        let period = commands.process.config().settings.stats_period;
        tokio::select! {
            () = tokio::time::sleep_until(begun + period) => {
                begun = Instant::now();
                period_over(&commands);
            }
            // The period may be another one.
            _ = reloads.changed() => {}
        }
    }
}

fn period_over(commands: &Commands) {
    let a = commands.period_over();
    if commands.process.config().settings.log_stats {
        // PgBouncer's words: people grep for them.
        tracing::info!(
            "stats: {} xacts/s, {} queries/s, {} client parses/s, {} server parses/s, {} binds/s, \
             {} client logins/s, in {} B/s, out {} B/s, xact {} us, query {} us, wait {} us",
            a.transactions,
            a.queries,
            a.client_parses,
            a.server_parses,
            a.binds,
            a.logins,
            a.received,
            a.sent,
            a.transaction_time,
            a.query_time,
            a.wait_time
        );
    }
}
