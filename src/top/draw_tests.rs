//! Pictures of what is looked at, at sizes from nothing to everything.

use std::time::{Duration, Instant};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};

use super::{
    app::{App, Next, Tab},
    draw::draw,
    plain,
    sample::{Counters, Database, Node, Pin, Pool, Query, Sample},
};

fn sample(at: Instant, transactions: u64) -> Sample {
    let pool = |database: &str, user: &str, waiting, active| Pool {
        database: database.to_owned(),
        user: user.to_owned(),
        mode: "transaction".to_owned(),
        active: 40,
        waiting,
        servers_active: active,
        servers_idle: 3,
        servers_login: 0,
        servers: active + 3,
        size: 20,
        maxwait: waiting * 1000,
    };
    let counters = Counters {
        transactions,
        queries: transactions * 2,
        received: transactions * 100,
        sent: transactions * 1000,
        transaction_time: transactions * 2000,
        query_time: transactions * 800,
        wait_time: transactions * 50,
    };
    let node = |node: &str, role: &str, lag| Node {
        database: "shop".to_owned(),
        node: node.to_owned(),
        role: role.to_owned(),
        weight: 1,
        timeline: 3,
        lag_bytes: lag,
        lag_time: lag,
        ..Node::default()
    };
    let query = |text: &str, calls, time| Query {
        database: "shop".to_owned(),
        user: "app".to_owned(),
        text: text.to_owned(),
        calls,
        time,
        rows: calls,
        ..Query::default()
    };
    Sample {
        at,
        version: "pooler 0.1.0".to_owned(),
        pools: vec![pool("shop", "app", 0, 5), pool("shop", "report", 7, 20)],
        databases: vec![Database {
            name: "shop".to_owned(),
            counters,
            clients: Some(47),
            servers: Some(31),
            state: "",
        }],
        nodes: Some(vec![
            node("10.0.0.1:5432", "primary", None),
            node("10.0.0.2:5432", "replica", Some(2_000_000)),
        ]),
        queries: Some(vec![query("SELECT $1", 10, 9000), query("UPDATE t SET a = $1", 500, 1000)]),
        counts_queries: true,
        pins: Some(vec![Pin {
            database: "shop".to_owned(),
            user: "app".to_owned(),
            reason: "temporary objects".to_owned(),
            servers: 1,
            longest: 90,
            pins: 4,
        }]),
        clients: 47,
        paused: false,
    }
}

fn app() -> App {
    let mut app = App::new("127.0.0.1:6432".to_owned(), Duration::from_secs(1));
    let now = Instant::now();
    app.take(sample(now, 1000));
    app.take(sample(now + Duration::from_secs(2), 4000));
    app
}

fn press(app: &mut App, code: KeyCode) -> Next {
    app.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn picture(app: &App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect::<Vec<_>>().join("\n")
}

fn assert_shows(app: &App, (width, height): (u16, u16), parts: &[&str]) {
    let picture = picture(app, width, height);
    for part in parts {
        assert!(picture.contains(part), "{part} at {width}x{height} in\n{picture}");
    }
}

#[test]
fn each_view_shows_what_is_known() {
    let mut app = app();
    let usual = (80, 24);
    assert_shows(
        &app,
        usual,
        &["pooler 0.1.0 at 127.0.0.1:6432", "47 clients (7 waiting)", "1.5k tx/s", "max 1.5k", "1 Pools"],
    );
    assert_shows(
        &app,
        (140, 24),
        &["shop      report", "23/20", "████████ 100%", "██░░░░░░ 25%", "transaction"],
    );
    press(&mut app, KeyCode::Char('2'));
    assert_shows(&app, (140, 24), &["3.0k", "2.0 ms", "400 µs", "150 kB", "1.5 MB"]);
    press(&mut app, KeyCode::Tab);
    assert_shows(&app, (140, 24), &["10.0.0.1:5432", "primary", "replica", "2.0 s", "2.0 MB"]);
    press(&mut app, KeyCode::Char('4'));
    assert_shows(&app, (160, 24), &["90%", "SELECT $1", "UPDATE t SET a = $1", "900 µs"]);
    press(&mut app, KeyCode::Char('5'));
    assert_shows(&app, usual, &["temporary objects", "90.0 s"]);
    press(&mut app, KeyCode::Right);
    assert_eq!(app.tab, Tab::Pools);
    press(&mut app, KeyCode::BackTab);
    assert_eq!(app.tab, Tab::Pins);
}

#[test]
fn no_size_is_too_small_or_too_large() {
    let mut app = app();
    for size in [(80, 24), (200, 50), (20, 5), (1, 1), (3, 2), (500, 3), (10, 100), (19, 14)] {
        for tab in ['1', '2', '3', '4', '5'] {
            press(&mut app, KeyCode::Char(tab));
            picture(&app, size.0, size.1);
            press(&mut app, KeyCode::Char('?'));
            picture(&app, size.0, size.1);
            press(&mut app, KeyCode::Char('x'));
        }
        picture(&App::default(), size.0, size.1);
    }
    press(&mut app, KeyCode::Char('1'));
    // Without room for all, what matters less goes, and what stays is whole.
    assert_shows(&app, (60, 24), &["database  user    waiting  maxwait  servers", "23/20  ████████ 100%"]);
    assert!(!picture(&app, 60, 24).contains("transaction"));
    // Of a few lines the table gets most.
    assert_shows(&app, (20, 5), &["database", "shop"]);
    assert_shows(&app, (200, 50), &["database", "maxwait", "transaction", "q leave"]);
}

#[test]
fn rows_are_sorted_by_the_column_that_is_chosen() {
    let mut app = app();
    press(&mut app, KeyCode::Char('4'));
    let first = |app: &App| {
        let picture = picture(app, 160, 24);
        if picture.find("SELECT $1") < picture.find("UPDATE t") { "SELECT" } else { "UPDATE" }
    };
    assert_eq!(first(&app), "SELECT");
    // By the share of time, and then by calls.
    press(&mut app, KeyCode::Char('s'));
    assert_eq!(first(&app), "SELECT");
    assert_shows(&app, (160, 24), &["% time ▼"]);
    press(&mut app, KeyCode::Char('s'));
    assert_eq!(first(&app), "UPDATE");
    press(&mut app, KeyCode::Char('r'));
    assert_eq!(first(&app), "SELECT");
    assert_shows(&app, (160, 24), &["calls ▲"]);
    // After the last column it is the console's order again.
    for _ in 0..12 {
        press(&mut app, KeyCode::Char('s'));
    }
    assert_eq!(app.sort(Tab::Queries), None);
}

#[test]
fn pause_keeps_the_picture_and_loss_is_told() {
    let mut app = app();
    press(&mut app, KeyCode::Char('p'));
    let now = Instant::now() + Duration::from_secs(60);
    app.take(sample(now, 1_000_000));
    assert_shows(&app, (100, 24), &["paused; p goes on", "1.5k tx/s"]);
    press(&mut app, KeyCode::Char(' '));
    app.lose("server closed the connection".to_owned());
    assert_shows(&app, (100, 24), &["connection lost: server closed the connection; trying again", "shop"]);
    // The first look at whatever answers then gives no rates.
    app.take(sample(now + Duration::from_secs(1), 10));
    assert_shows(&app, (100, 24), &["rates come with the next look"]);
    app.take(sample(now + Duration::from_secs(2), 30));
    assert_shows(&app, (100, 24), &["20 tx/s"]);
    // Its counters have begun anew, without a word.
    app.take(sample(now + Duration::from_secs(3), 5));
    assert_shows(&app, (100, 24), &["rates come with the next look"]);
}

#[test]
fn keys_leave_scroll_and_help() {
    let mut app = app();
    press(&mut app, KeyCode::Down);
    assert_eq!(app.scroll, 1);
    press(&mut app, KeyCode::PageDown);
    assert_eq!(app.scroll, 1, "there are two rows");
    press(&mut app, KeyCode::Home);
    press(&mut app, KeyCode::Up);
    assert_eq!(app.scroll, 0);
    press(&mut app, KeyCode::Char('?'));
    assert_shows(&app, (80, 24), &["Keys", "sort by the next column"]);
    // Any key closes it, and does nothing else.
    assert_eq!(press(&mut app, KeyCode::Char('q')), Next::Goes);
    assert_eq!(press(&mut app, KeyCode::Char('q')), Next::Quits);
    assert_eq!(press(&mut app, KeyCode::Esc), Next::Quits);
    assert_eq!(app.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Next::Quits);
}

#[test]
fn what_a_console_lacks_is_said() {
    let mut app = App::new("h:1".to_owned(), Duration::from_secs(1));
    let bare = Sample {
        nodes: None,
        queries: Some(Vec::new()),
        counts_queries: false,
        pins: None,
        pools: Vec::new(),
        ..sample(Instant::now(), 1)
    };
    app.take(bare.clone());
    for (tab, said) in [
        ('1', "No client has asked for a database yet."),
        ('3', "This console knows no nodes."),
        ('4', "set query_statistics = 500"),
        ('5', "does not tell"),
    ] {
        press(&mut app, KeyCode::Char(tab));
        assert_shows(&app, (80, 24), &[said]);
    }
    let text = plain::text(&app);
    assert!(text.contains("\nQueries\n  Statements are not counted: set query_statistics = 500"), "{text}");
    app.take(Sample { queries: None, ..bare });
    assert!(plain::text(&app).contains("This console counts no statements."));
}

#[test]
fn plain_text_has_every_view_in_columns() {
    let text = plain::text(&app());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "pooler 0.1.0 at 127.0.0.1:6432");
    let at = lines.iter().position(|line| *line == "Pools").unwrap();
    assert_eq!(
        lines[at + 1..at + 4],
        [
            "  database  user    clients  waiting  maxwait  at work  idle  login  servers  full  mode",
            "  shop      app          40        0     0 µs        5     3      0     8/20   25%  transaction",
            "  shop      report       40        7   7.0 ms       20     3      0    23/20  100%  transaction",
        ]
    );
    assert!(!text.contains('\u{1b}'));
}
