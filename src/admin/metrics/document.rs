//! Writes `docs/metrics.md` from the table, and checks that it is up to date, and that dashboard and alerts in `packaging/` speak of
//! metrics that there are.
//!
//! After a change of the table: `REGENERATE=1 cargo test --lib metrics`.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use super::{Kind, table::METRICS};
use crate::config::document::assert_up_to_date;

fn reference() -> String {
    let mut out = String::from(
        "# Metrics\n\n\
         Generated from the table in `src/admin/metrics/table.rs` by `REGENERATE=1 cargo test --lib metrics`.\n\n\
         With `metrics_addr = 9127` they are at `http://127.0.0.1:9127/metrics`, as OpenMetrics for those who ask for that, else as text of\n\
         Prometheus. A dashboard is in `packaging/grafana/pooler.json`, rules for alerts in `packaging/prometheus/alerts.yml`.\n\n\
         - `database`, `user` and `node` are those of the pool; `node` is empty where the database has no nodes. With more than 2000\n\
         \x20 pools all users of a database are told of together (as `*`).\n\
         - Counts of a pool begin anew when it is dropped (`pool_idle_timeout`, `autodb_idle_timeout`) and made again.\n\
         - Histograms have two buckets for each doubling, from 64 µs to 67 s: `histogram_quantile(0.999, …)` is right to a third.\n\
         - Counters with a `reason`, `route` or `sqlstate` appear when there is something to count.\n\n\
         | metric | kind | labels | |\n|---|---|---|---|\n",
    );
    for metric in METRICS {
        let (suffix, kind) = match metric.kind {
            Kind::Counter => ("_total", "counter"),
            Kind::Gauge => ("", "gauge"),
            Kind::Histogram => ("", "histogram"),
        };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, labels, help) = (metric.name, labels.join(", "), metric.help);
        writeln!(out, "| `{name}{suffix}` | {kind} | {labels} | {help} |").unwrap();
    }
    out.push_str(
        "\n`/healthz` answers 200 as long as the process lives. `/readyz` answers 200 when it should get clients, else 503 with the\n\
         reason: `shutting down` (also when another process has taken over), `paused` (PAUSE without a database), or `no server can\n\
         be reached`: no pool has a server, and the last attempt of each has failed. What nobody has asked for yet counts as reachable, and\n\
         one pool that has a server is enough.\n",
    );
    out
}

#[test]
fn reference_page_is_up_to_date() {
    assert_up_to_date("docs/metrics.md", &reference());
}

#[test]
fn names_are_those_of_prometheus() {
    let mut seen = BTreeSet::new();
    for metric in METRICS {
        let valid = |name: &str| {
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && !name.starts_with('_')
        };
        assert!(valid(metric.name) && metric.labels.iter().all(|label| valid(label)), "{}", metric.name);
        assert!(seen.insert(metric.name), "{} is there twice", metric.name);
        assert!(!metric.name.ends_with("_total") && !metric.help.ends_with('.'), "{}", metric.name);
        let timed = metric.kind == Kind::Histogram;
        assert!(!timed || metric.name.ends_with("_seconds"), "{}", metric.name);
    }
}

/// Names in a text that begin with `pooler_`.
fn names_in(text: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(|c| !is_name(c)).filter(|word| word.starts_with("pooler_")).collect()
}

/// What a scrape calls the samples of all metrics.
fn sample_names() -> BTreeSet<String> {
    let names = METRICS.iter().flat_map(|metric| {
        let suffixes: &[&str] = match metric.kind {
            Kind::Counter => &["_total"],
            Kind::Gauge => &[""],
            Kind::Histogram => &["_bucket", "_sum", "_count"],
        };
        suffixes.iter().map(|suffix| format!("{}{suffix}", metric.name))
    });
    names.collect()
}

#[test]
fn dashboard_and_alerts_speak_of_metrics_that_there_are() {
    let known = sample_names();
    for (file, at_least) in [("packaging/grafana/pooler.json", 20), ("packaging/prometheus/alerts.yml", 8)] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        let used = names_in(&text);
        let unknown: Vec<_> = used.iter().filter(|name| !known.contains(**name)).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
        assert!(used.len() >= at_least, "{file}: {used:?}");
    }
}

#[test]
fn dashboard_can_be_imported() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/grafana/pooler.json");
    let dashboard: serde_json::Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
        assert!(panel["gridPos"]["w"].as_u64().unwrap() <= 24, "{panel}");
        let targets = panel["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
        assert!(panel["type"] == "row" || !targets.is_empty(), "{panel}");
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            let balanced =
                |open, close| expression.matches(open).count() == expression.matches(close).count();
            assert!(balanced('(', ')') && balanced('{', '}') && balanced('[', ']'), "{expression}");
            assert!(!names_in(expression).is_empty(), "{expression}");
        }
    }
}
