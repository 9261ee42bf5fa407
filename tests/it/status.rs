//! The status page: who may see it, what it is told, and that it is there only where it is asked for. What a browser makes of it
//! is tested in `tests/browser`.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use pooler::demo::process::wait_until;
use serde_json::Value;

use crate::{
    metrics::{Answer, Seen, exchange, get},
    support::{
        database::{Database, password_of},
        pooler::Setup,
        raw::{PATIENCE, Raw},
        replicated::Replicated,
    },
};

const PARTS: [&str; 5] = ["/", "/status", "/status.css", "/status.js", "/status.json"];

fn ask(port: u16, path: &str, user: &str, password: &str, headers: &str) -> Answer {
    let proof = BASE64.encode(format!("{user}:{password}"));
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: x:{port}\r\nAuthorization: Basic {proof}\r\n{headers}\r\n");
    exchange(port, request.as_bytes())
}

/// As the operator.
fn ask_as_admin(port: u16, path: &str) -> Answer {
    ask(port, path, "admin", &password_of("admin"), "")
}

fn numbers(port: u16) -> Value {
    let answer = ask_as_admin(port, "/status.json");
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

/// Waits until the numbers are such.
fn wait_for(port: u16, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let met = wait_until(PATIENCE, || {
        last = numbers(port);
        is(&last).then_some(())
    });
    assert!(met.is_some(), "{what}: {last:#}");
    last
}

fn events(numbers: &Value) -> Vec<String> {
    let told = numbers["events"].as_array().unwrap().iter();
    told.map(|e| {
        ["kind", "database", "text"].map(|field| e[field].as_str().unwrap()).join(" ").replace("  ", " ")
    })
    .collect()
}

#[test]
fn it_is_there_only_where_it_is_asked_for_and_goes_by_reload() {
    let database = Database::new();
    let seen = Seen::start(Setup::new(&database));
    for path in PARTS {
        assert_eq!(ask_as_admin(seen.port, path).status, 404, "{path}");
    }
    seen.pooler.console("SET status_page = 1");
    for path in PARTS {
        assert_eq!(ask_as_admin(seen.port, path).status, 200, "{path}");
    }
    seen.pooler.console("RELOAD");
    assert_eq!(ask_as_admin(seen.port, "/status").status, 404);
    assert_eq!(get(seen.port, "/healthz").status, 200);
}

#[test]
fn it_is_for_users_of_the_console_who_prove_who_they_are() {
    let database = Database::new();
    let setup = Setup::new(&database).setting("status_page = true").setting("stats_users = [\"watcher\"]");
    let seen = Seen::start(setup.section("[users.watcher]\npassword = \"pw of watcher\"\n[users.open]"));
    for path in PARTS {
        let answer = get(seen.port, path);
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.head.contains("www-authenticate: basic realm=\"pooler\""), "{}", answer.head);
        assert!(!answer.body.contains("app"), "{}", answer.body);
        assert_eq!(ask(seen.port, path, "watcher", "pw of watcher", "").status, 200, "{path}");
    }
    assert_eq!(ask(seen.port, "/status.json", "admin", "wrong", "").status, 401);
    // A right one clears what was wrong before.
    assert_eq!(ask_as_admin(seen.port, "/status.json").status, 200);
    for (user, password) in [("app", password_of("app").as_str()), ("open", ""), ("nobody", "x"), ("", "")] {
        assert_eq!(ask(seen.port, "/status.json", user, password, "").status, 401, "{user}");
    }
    assert_eq!(seen.sum("pooler_failed_logins_total", &["reason=\"password\""]), 5.0);
    assert!(seen.pooler.log().contains("status page: login refused"), "{}", seen.pooler.log());
    // Whoever guesses has to wait, also with the right one; metrics are no guess.
    ask(seen.port, "/status.json", "admin", "guess", "");
    let late = ask_as_admin(seen.port, "/status.json");
    assert_eq!(late.status, 429);
    assert!(late.head.contains("retry-after: "), "{}", late.head);
    assert_eq!(get(seen.port, "/metrics").status, 200);
    let again = wait_until(PATIENCE, || (ask_as_admin(seen.port, "/status").status == 200).then_some(()));
    assert!(again.is_some(), "it never gets in again");
}

#[test]
fn other_sites_and_other_methods_get_nothing() {
    let database = Database::new();
    let seen = Seen::start(Setup::new(&database).setting("status_page = true"));
    let with =
        |path: &str, headers: &str| ask(seen.port, path, "admin", &password_of("admin"), headers).status;
    assert_eq!(with("/status.json", "Origin: http://evil.example\r\n"), 403);
    assert_eq!(with("/status.json", "Sec-Fetch-Site: cross-site\r\n"), 403);
    assert_eq!(with("/status.json", "Sec-Fetch-Site: same-origin\r\n"), 200);
    let proof = BASE64.encode(format!("admin:{}", password_of("admin")));
    let post = format!(
        "POST /status.json HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {proof}\r\nContent-Length: 0\r\n\r\n"
    );
    assert_eq!(exchange(seen.port, post.as_bytes()).status, 405);
    let page = ask_as_admin(seen.port, "/status");
    for header in [
        "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "cross-origin-resource-policy: same-origin",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
    ] {
        assert!(page.head.contains(header), "{header} is missing: {}", page.head);
    }
    assert!(!page.head.contains("set-cookie") && !page.head.contains("access-control-allow"));
}

#[test]
fn numbers_tell_of_pools_events_and_statements() {
    let database = Database::new();
    let odd = "<script>alert(1)</script>";
    let section = format!(
        "[databases.'{odd}']\nhost = \"127.0.0.1\"\nport = {}\ndbname = \"{}\"",
        database.port, database.name
    );
    let setup = Setup::new(&database).setting("status_page = true").setting("query_statistics = 100");
    let seen = Seen::start(setup.section(&section));
    let mut client = Raw::login(seen.pooler.port, "app", odd, &password_of("app"));
    (0..3).for_each(|_| drop(client.sql("SELECT 'secret' WHERE 1 = 1")));
    client.sql("SELECT pg_advisory_lock(1)");
    let mut told = wait_for(seen.port, "pool", |n| n["pools"][0]["transactions"].as_u64() >= Some(4));
    let pool = &told["pools"][0];
    assert_eq!((&pool["database"], &pool["user"], &pool["pinned"]), (&odd.into(), &"app".into(), &1.into()));
    assert_eq!(told["pins"]["advisory lock"], 1);
    let statements = told["statements"].as_array().unwrap();
    let text = |s: &Value| s["text"].as_str().unwrap().to_owned();
    assert!(
        statements.iter().any(|s| text(s) == "SELECT ? WHERE ? = ?" && s["calls"] == 3),
        "{statements:?}"
    );
    assert!(!told.to_string().contains("secret"));
    seen.pooler.console(&format!("PAUSE {}", database.name));
    seen.pooler.console(&format!("RESUME {}", database.name));
    seen.pooler.console("RELOAD");
    told = wait_for(seen.port, "events", |n| events(n).len() >= 4);
    let expected = [
        "configuration reloaded".to_owned(),
        format!("command {} RESUME", database.name),
        format!("command {} PAUSE", database.name),
    ];
    assert_eq!(events(&told)[..3], expected);
    assert!(events(&told)[3].starts_with("process pooler "), "{told:#}");
    // The last minutes are there for a page that is opened now.
    client.sql("SELECT 1");
    told =
        wait_for(seen.port, "history", |n| n["history"].as_array().is_some_and(|points| points.len() >= 2));
    assert!(told["history"][0]["at"].as_u64() > Some(1_600_000_000_000), "{told:#}");
    seen.pooler.console("SET query_statistics = 0");
    wait_for(seen.port, "no statements", |n| n["statements"].is_null());
}

#[test]
fn a_failover_is_an_event_and_nodes_have_their_roles() {
    let mut cluster = Replicated::start(1, &[]);
    let seen = Seen::start(cluster.setup(&[0, 1]).setting("status_page = true"));
    cluster.wait_for_replicas(&seen.pooler);
    let roles = |n: &Value| -> Vec<String> {
        let nodes = n["nodes"].as_array().unwrap().iter();
        nodes.map(|node| node["role"].as_str().unwrap().to_owned()).collect()
    };
    let told = wait_for(seen.port, "roles", |n| roles(n) == ["primary", "replica"]);
    assert_eq!(told["nodes"][1]["reason"], Value::Null, "{told:#}");
    cluster.stop_fast(0);
    cluster.promote(1);
    let told = wait_for(seen.port, "failover", |n| roles(n) == ["down", "primary"]);
    let text = format!("node 127.0.0.1:{} was replica, is primary", cluster.node(1).port);
    assert!(
        events(&told).iter().any(|event| event.starts_with("failover ") && event.contains(&text)),
        "{told:#}"
    );
    assert!(told["nodes"][0]["reason"].is_string(), "{told:#}");
}
