//! Putting a new configuration in force, all of it or nothing.

use std::{path::PathBuf, sync::Arc};

use crate::{
    cli::Source,
    config::{Config, Problem, Problems},
    error::Printable,
    net::tls::{ClientTls, ServerTls, TlsError},
    worker::{
        message::Message,
        process::{Live, Process},
    },
};

/// Reads, checks, then replaces. With `--upstream` there is nothing to read.
pub(super) fn reload(process: &Arc<Process>, source: &Source) -> Result<(), Problems> {
    if matches!(source, Source::Upstream { .. }) {
        tracing::info!("nothing to reload: there is no configuration file");
        return Ok(());
    }
    let loaded = source.load().inspect_err(|problems| {
        for problem in &problems.0 {
            let problem = problem.in_one_line();
            tracing::error!("configuration not reloaded, the old one stays in force: {problem}");
        }
    })?;
    for warning in &loaded.warnings {
        tracing::warn!("{}", warning.in_one_line());
    }
    let old = process.live();
    let mut config = loaded.config;
    let diff = Config::diff(&old.config, &config);
    for name in &diff.needs_restart {
        tracing::warn!("{name} has changed: takes effect after a restart");
    }
    config.keep_restart_settings(&old.config);
    let file = config.path.clone().unwrap_or_else(|| PathBuf::from("pooler.toml"));
    put_in_force(process, config).map_err(|error| {
        tracing::error!("configuration not reloaded, the old one stays in force: {error}");
        Problems(vec![Problem::in_file(&file, error.to_string()).remedy(error.hint())])
    })?;
    tracing::info!("configuration reloaded");
    Ok(())
}

/// Changes one setting of the configuration in force.
pub(super) fn set(process: &Arc<Process>, name: &str, value: &str) -> Result<(), String> {
    let mut config = Config::clone(&process.config());
    config.set(name, value)?;
    put_in_force(process, config).map_err(|error| {
        tracing::error!("TLS settings could not be applied, still using old configuration: {error}");
        error.to_string()
    })?;
    tracing::info!("{name} is now {}", Printable(value));
    Ok(())
}

fn put_in_force(process: &Arc<Process>, config: Config) -> Result<(), TlsError> {
    let old = process.live();
    let client_tls = ClientTls::build(&config.settings)?;
    let server_tls = ServerTls::build(&config.settings)?;
    let tls_changed = server_tls != *old.server_tls;
    let live = Live {
        client_tls: client_tls.map(Arc::new),
        // The same object as before if nothing changed: connections know it.
        server_tls: if tls_changed { Arc::new(server_tls) } else { Arc::clone(&old.server_tls) },
        config: Arc::new(config),
    };
    process.set_live(live);
    process.logins.lookups.forget_all();
    for database in process.renew_pools(tls_changed) {
        for worker in &process.workers {
            worker.send(Message::Kill { database: Some(database.clone()), reason: "database removed" });
        }
    }
    Ok(())
}
