//! The metrics: one table of all there are, from which exposition and docs come.
//!
//! A scrape reads counters that the workers keep anyway, and asks each worker once for its clients and servers, between two
//! of its turns. It takes no lock that a query waits for.

#[cfg(test)]
mod document;
pub(super) mod gather;
pub(crate) mod http;
mod process;
mod table;

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text},
    metrics::MetricType,
    registry::Registry,
};

use self::{
    gather::{Snapshot, Times},
    table::METRICS,
};

/// Kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Its name ends in `_total`, which is not in the table.
    Counter,
    Gauge,
    Histogram,
}

/// One metric.
struct Metric {
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
    samples: fn(&Snapshot) -> Vec<Sample<'_>>,
}

/// One value, with a value for each label.
struct Sample<'s> {
    labels: Vec<&'s str>,
    value: Value<'s>,
}

enum Value<'s> {
    Count(u64),
    /// A count of microseconds.
    Seconds(u64),
    Level(f64),
    Times(&'s Times),
}

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Of Prometheus, version 0.0.4.
    Text,
    OpenMetrics,
}

impl Format {
    fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Metrics of one moment, as text.
fn write(snapshot: Snapshot, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(snapshot)));
    let mut out = String::new();
    match format {
        Format::Text => prometheus_text::encode(&mut out, &registry)?,
        Format::OpenMetrics => text::encode(&mut out, &registry)?,
    }
    Ok(out)
}

#[derive(Debug)]
struct Scrape(Snapshot);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in METRICS {
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            for sample in (metric.samples)(&self.0) {
                let labels: Vec<(&str, &str)> = metric.labels.iter().copied().zip(sample.labels).collect();
                encode(family.encode_family(&labels)?, &sample.value)?;
            }
        }
        Ok(())
    }
}

fn encode(mut sample: MetricEncoder<'_>, value: &Value<'_>) -> fmt::Result {
    match value {
        Value::Count(count) => sample.encode_counter::<NoLabelSet, _, f64>(count, None),
        Value::Seconds(micros) => sample.encode_counter::<NoLabelSet, _, f64>(&seconds(*micros), None),
        Value::Level(level) => sample.encode_gauge(level),
        Value::Times(times) => {
            let ends = times.distribution.buckets();
            let buckets: Vec<(f64, u64)> =
                ends.map(|(end, count)| (end.map_or(f64::INFINITY, seconds), count)).collect();
            sample.encode_histogram::<NoLabelSet>(
                seconds(times.sum),
                times.distribution.count(),
                &buckets,
                None,
            )
        }
    }
}

/// Of microseconds: 285 years lose one.
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// Exact up to 2^53.
fn level(n: u64) -> f64 {
    n as f64
}
