//! Putting a new configuration in force, all of it or nothing.

use std::{path::PathBuf, sync::Arc};

use super::process::{Live, Process};
use crate::{
    cli::Source,
    config::{Config, Problem, Problems},
    net::tls::{ClientTls, ServerTls, TlsError},
    pool::registry::Context,
    worker::message::Message,
};

/// Reads, checks, then replaces. With `--upstream` there is nothing to read.
pub(super) fn reload(process: &Process, source: &Source) -> Result<(), Problems> {
    if matches!(source, Source::Upstream { .. }) {
        tracing::info!("nothing to reload: there is no configuration file");
        return Ok(());
    }
    let loaded = source.load().inspect_err(|problems| {
        tracing::error!("configuration not reloaded, the old one stays in force:\n{problems}");
    })?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let old = process.live();
    let mut config = loaded.config;
    let diff = Config::diff(&old.config, &config);
    for name in &diff.needs_restart {
        tracing::warn!("{name} has changed: takes effect after a restart");
    }
    config.settings.keep_restart_settings(&old.config.settings);
    let client_tls = ClientTls::build(&config.settings).map_err(|e| problem(&config, &e))?;
    let server_tls = ServerTls::build(&config.settings).map_err(|e| problem(&config, &e))?;
    let tls_changed = server_tls != *old.server_tls;
    let live = Live {
        client_tls: client_tls.map(Arc::new),
        // The same object as before if nothing changed: connections know it.
        server_tls: if tls_changed { Arc::new(server_tls) } else { Arc::clone(&old.server_tls) },
        config: Arc::new(config),
    };
    process.set_live(live.clone());
    let removed = process.pools.reload(Context { config: &live.config, tls: &live.server_tls }, tls_changed);
    process.refresh();
    for database in removed {
        for worker in &process.workers {
            worker.send(Message::Kill { database: Some(database.clone()), reason: "database removed" });
        }
    }
    tracing::info!("configuration reloaded");
    Ok(())
}

fn problem(config: &Config, error: &TlsError) -> Problems {
    let file = config.path.clone().unwrap_or_else(|| PathBuf::from("pooler.toml"));
    tracing::error!("configuration not reloaded, the old one stays in force: {error}");
    Problems(vec![Problem::in_file(&file, error.to_string()).remedy(error.hint())])
}
