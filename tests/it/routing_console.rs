//! What operators see of routing: SHOW NODES, SHOW ROUTES, SHOW WHY.

use std::collections::BTreeMap;

use pooler::demo::process::wait_until;

use crate::{
    routing_table::{TABLE, nodes, start},
    support::{
        pooler::Pooler,
        raw::PATIENCE,
        truth::{Place, client, rows},
    },
};

/// Rows of a console command, by column.
fn show(pooler: &Pooler, command: &str) -> Vec<BTreeMap<String, String>> {
    pooler.console(command).into_iter().map(|row| row.into_iter().collect()).collect()
}

/// Role and reason of each node, in the order of the configuration.
fn roles(pooler: &Pooler) -> Vec<String> {
    show(pooler, "SHOW NODES").iter().map(|row| row["role"].clone()).collect()
}

#[test]
fn show_nodes_tells_roles_and_why_a_node_is_down() {
    let mut cluster = nodes();
    let pooler = start(&cluster, |setup| setup.setting("node_check_interval = \"200ms\""));
    assert_eq!(roles(&pooler), ["replica", "primary", "replica"]);
    for (row, index) in show(&pooler, "SHOW NODES").iter().zip([1, 0, 2]) {
        assert_eq!(row["database"], "replicated");
        assert!(row["node"].ends_with(&cluster.node(index).port.to_string()), "{row:?}");
        assert_eq!(row["timeline"], "1");
    }
    cluster.stop_fast(1);
    let down = wait_until(PATIENCE, || (roles(&pooler)[0] == "down").then_some(()));
    assert!(down.is_some(), "{:?}", roles(&pooler));
    assert_ne!(show(&pooler, "SHOW NODES")[0]["reason"], "");
    cluster.restart(1);
    let up = wait_until(PATIENCE, || (roles(&pooler)[0] == "replica").then_some(()));
    assert!(up.is_some(), "{:?}", roles(&pooler));
    cluster.wait_for_replicas(&pooler);
}

#[test]
fn show_routes_counts_requests_by_reason() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let count = |prefix: &str| -> u64 {
        let rows = show(&pooler, "SHOW ROUTES");
        let of = rows.iter().filter(|row| row["route"].starts_with(prefix));
        of.map(|row| row["requests"].parse::<u64>().unwrap()).sum()
    };
    let reasons =
        ["replica: read", "primary: word", "primary: statement", "primary: function", "primary: asked"];
    let before = reasons.map(count);
    let mut client = client(&pooler, "app");
    (0..5).for_each(|_| drop(client.sql("SELECT count(*) FROM item")));
    (0..2).for_each(|_| drop(client.sql("/* pooler: primary */ SELECT count(*) FROM item")));
    (0..3).for_each(|_| drop(client.sql("UPDATE target SET x = 9 WHERE id = 2")));
    (0..4).for_each(|_| drop(client.sql("SELECT nextval('seq')")));
    client.sql("SELECT id FROM item WHERE id = 1 FOR UPDATE");
    let more: Vec<u64> = reasons.map(count).iter().zip(before).map(|(now, before)| now - before).collect();
    assert_eq!(
        (more[0], more[1] + more[2], more[3], more[4]),
        (5, 4, 4, 2),
        "{:?}",
        show(&pooler, "SHOW ROUTES")
    );
}

#[test]
fn show_clients_tells_of_each_client_what_its_last_request_was_and_where_it_went() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let mut client = client(&pooler, "app");
    let primary = cluster.node(0).port.to_string();
    let mut last = |sql: &[&str]| {
        sql.iter().for_each(|sql| drop(client.sql(sql)));
        let mut rows =
            show(&pooler, "SHOW CLIENTS").into_iter().filter(|row| row["database"] == "replicated");
        let row = rows.next_back().unwrap();
        let at = if row["node"].ends_with(&primary) { "primary" } else { "replica" };
        assert!(!row["node"].is_empty(), "{row:?}");
        [row["class"].clone(), row["route"].clone(), at.to_owned()]
    };
    for (sql, expected) in [
        (&["SELECT count(*) FROM item"][..], ["read", "replica: read", "replica"]),
        (&["UPDATE target SET x = 9 WHERE id = 2"], ["statement", "primary: statement", "primary"]),
        (&["SELECT nextval('seq')"], ["function", "primary: function", "primary"]),
        (&["/* pooler: primary */ SELECT count(*) FROM item"], ["read", "primary: asked", "primary"]),
        (
            &["BEGIN READ ONLY", "SELECT count(*) FROM item", "COMMIT"],
            ["read_only", "replica: read_only", "replica"],
        ),
        (&["BEGIN", "SELECT count(*) FROM item", "COMMIT"], ["transaction", "primary: statement", "primary"]),
    ] {
        assert_eq!(last(sql), expected, "{sql:?}");
    }
}

#[test]
fn show_why_says_what_happens() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let mut wrong = Vec::new();
    for row in rows(TABLE).iter().filter(|row| row.place != Place::Same) {
        let text = row.text(&cluster, "why");
        let rows = show(&pooler, &format!("SHOW WHY '{}'", text.replace('\'', "''")));
        let place = if row.place == Place::Replica { "replica" } else { "primary" };
        if rows.len() != 1 || rows[0]["route"] != place {
            wrong.push(format!("line {}: {rows:?} for {text}", row.line));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    let why = |sql: &str| show(&pooler, &format!("SHOW WHY '{sql}'")).remove(0);
    let call = why("SELECT nextval(''seq'')");
    assert_eq!((call["reason"].as_str(), call["because_of"].as_str()), ("function", "nextval"));
    let relation = why("SELECT * FROM u_item");
    assert_eq!((relation["reason"].as_str(), relation["because_of"].as_str()), ("relation", "u_item"));
    assert_eq!(why("SELECT * FROM item WHERE id = 1 FOR UPDATE")["reason"], "word");
    assert_eq!(why("INSERT INTO item SELECT 1")["reason"], "statement");
}
