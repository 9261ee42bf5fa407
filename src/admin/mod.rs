//! The admin console: databases `pooler` and `pgbouncer` over psql.

use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::{app::commands::Commands, client::LoggedIn, worker::message::ConsoleInput};

/// Starts a console task.
pub(crate) fn open(_commands: Arc<Commands>, _client: &LoggedIn) -> (UnboundedSender<ConsoleInput>, Vec<u8>) {
    let (sender, _receiver) = unbounded_channel();
    (sender, Vec::new())
}
