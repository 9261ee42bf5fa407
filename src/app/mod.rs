//! The process: listeners, workers, reload, signals, shutdown.

pub mod limits;
