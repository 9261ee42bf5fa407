//! Session parameters are a client's own, on whichever server it is (H22, H44, S42, S43).

use crate::support::{
    compare::Pair,
    database::{Database, Version, password_of, shared},
    msg::*,
    pooler::Pooler,
    raw::Raw,
};

/// Startup parameters that differ from every server's defaults: reported ones, and ones that PostgreSQL does not report.
const STARTUP: [(&str, &str); 4] = [
    ("TimeZone", "Asia/Tokyo"),
    ("application_name", "at startup"),
    ("extra_float_digits", "-5"),
    (
        "options",
        "-c DateStyle=German --statement_timeout=12345 -c search_path=one,\\ \"Two\\ words\",pg_catalog",
    ),
];

/// Everything that [`STARTUP`] names.
const NAMES: [&str; 6] =
    ["TimeZone", "application_name", "extra_float_digits", "DateStyle", "statement_timeout", "search_path"];

fn show(client: &mut Raw) -> Vec<String> {
    let list = NAMES.map(|name| format!("current_setting('{name}')")).join(",");
    client.sql(&format!("SELECT {list}"))
}

/// A database of each version, with a pooler that has one server for it.
fn pairs() -> Vec<Pair> {
    [Version::Distribution, Version::V18]
        .into_iter()
        .map(|version| {
            let database = Database::of(version);
            let pooler = Pooler::of(&database, &["default_pool_size = 1"]);
            Pair { database, pooler }
        })
        .collect()
}

impl Pair {
    fn direct(&self, more: &[(&str, &str)]) -> Raw {
        Raw::login_with(self.database.port, "app", &self.database.name, &password_of("app"), more)
    }

    fn pooled(&self, more: &[(&str, &str)]) -> Raw {
        Raw::login_with(self.pooler.port, "app", &self.database.name, &password_of("app"), more)
    }

    /// Logs in with these startup parameters.
    fn trio(&self, more: &[(&str, &str)]) -> Trio {
        let (direct, pooled) = (self.direct(more), self.pooled(more));
        Trio { direct, pooled, other: self.pooled(&[("application_name", "other")]) }
    }

    /// One script; see [`Trio::same`].
    fn same_with_startup(&self, more: &[(&str, &str)], script: impl Fn(&mut Raw) -> Vec<String>) {
        self.trio(more).same(script);
    }
}

/// A client of PostgreSQL, one of pooler, and another one of pooler that shares its server.
struct Trio {
    direct: Raw,
    pooled: Raw,
    other: Raw,
}

impl Trio {
    /// Runs the script at PostgreSQL and through pooler: the client must see the same values and be left with the same
    /// reports, and the other one must not notice.
    fn same(&mut self, script: impl Fn(&mut Raw) -> Vec<String>) {
        let Self { direct, pooled, other } = self;
        let expected = script(direct);
        let before = show(other);
        assert_eq!(script(pooled), expected);
        assert_eq!(reports(pooled), reports(direct));
        assert_eq!(show(other), before);
        assert_eq!(show(pooled), show(direct));
        assert_eq!(show(other), before);
        assert_eq!(other.received.iter().filter(|frame| frame.tag == b'S').count(), 0);
    }
}

/// What a client believes its parameters to be.
fn reports(client: &Raw) -> Vec<(String, String)> {
    let mut known = client.parameters.clone();
    for frame in client.received.iter().filter(|frame| frame.tag == b'S') {
        let text = String::from_utf8(frame.body.clone()).unwrap();
        let (name, value) = text.trim_end_matches('\0').split_once('\0').unwrap();
        let entry = known.iter_mut().find(|(n, _)| n == name).unwrap();
        entry.1 = value.to_owned();
    }
    known.sort();
    known
}

// S42
#[test]
fn startup_parameters_hold_in_every_transaction() {
    for pair in pairs() {
        pair.same_with_startup(&STARTUP, |client| {
            let first = show(client);
            client.sql("BEGIN");
            let second = show(client);
            client.sql("ROLLBACK");
            [first, second].concat()
        });
    }
}

// S36, S42: a value may be spelled in another way, or say a part only (DateStyle): the rest is not another client's.
#[test]
fn startup_values_are_what_a_server_of_ones_own_makes_of_them() {
    let values = [
        ("DateStyle", "iso"),
        ("DateStyle", "postgres"),
        ("DateStyle", "ymd"),
        ("client_encoding", "utf-8"),
        ("TimeZone", "utc"),
        ("standard_conforming_strings", "1"),
    ];
    for pair in pairs() {
        // The second time it is known what servers make of them.
        for startup in [values, values].as_flattened() {
            pair.pooled(&[]).sql(
                "SET DateStyle TO 'SQL, DMY'; SET extra_float_digits TO -7; SET TimeZone TO 'Asia/Tokyo'",
            );
            let (mut direct, mut pooled) = (pair.direct(&[*startup]), pair.pooled(&[*startup]));
            assert_eq!(reports(&pooled), reports(&direct), "{startup:?}");
            assert_eq!(show(&mut pooled), show(&mut direct), "{startup:?}");
            let date = "SELECT '01/02/03'::date, 1";
            assert_eq!(pooled.sql(date), direct.sql(date), "{startup:?}");
            pooled.sql("RESET DateStyle");
            direct.sql("RESET DateStyle");
            assert_eq!(show(&mut pooled), show(&mut direct), "{startup:?}");
        }
    }
}

// H44, S42
#[test]
fn reset_brings_back_the_startup_values() {
    let statements = [
        "RESET ALL",
        "DISCARD ALL",
        "RESET TimeZone",
        "RESET TIME ZONE",
        "SET TimeZone TO DEFAULT",
        "SET TIME ZONE DEFAULT",
        "/* tool */ reset \"datestyle\" ;",
        "SET SESSION application_name = default",
        "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;",
        "SET DateStyle = SQL; RESET TimeZone; SELECT 1",
        "SET extra_float_digits TO DEFAULT",
        "RESET statement_timeout",
        "RESET search_path",
    ];
    for pair in pairs() {
        let mut trio = pair.trio(&STARTUP);
        for reset in statements {
            trio.same(|client| {
                client.sql("SET TimeZone TO 'Europe/Paris'");
                client.sql("SET application_name TO 'mine'");
                let set = show(client);
                client.sql(reset);
                [set, show(client)].concat()
            });
            // In extended protocol, prepared or not; one message does for several statements only in the other.
            if !reset.contains("; ") {
                for name in ["", "s"] {
                    trio.same(|client| {
                        client.sql("SET TimeZone TO 'Europe/Paris'");
                        client.send_all(&[
                            close(name),
                            parse(name, reset),
                            bind(name, &[]),
                            execute(),
                            sync(),
                        ]);
                        client.send_all(&[parse("", "SHOW TimeZone"), bind("", &[]), execute(), sync()]);
                        let frames = client.ready(2);
                        let rows = frames.iter().filter(|frame| frame.tag == b'D').map(Frame::row);
                        rows.chain(show(client)).collect()
                    });
                }
            }
        }
    }
}

// S43
#[test]
fn reset_in_a_transaction_ends_with_it() {
    let steps = [
        "RESET ALL",
        "RESET TimeZone",
        "SET LOCAL TimeZone TO DEFAULT",
        "SET LOCAL extra_float_digits TO DEFAULT",
        "SELECT 1; RESET ALL; SELECT 2",
    ];
    for pair in pairs() {
        let mut trio = pair.trio(&STARTUP);
        for (step, end) in steps.iter().flat_map(|step| ["COMMIT", "ROLLBACK"].map(|end| (step, end))) {
            trio.same(|client| {
                client.sql("SET TimeZone TO 'Europe/Paris'");
                client.sql("BEGIN");
                client.sql("SAVEPOINT s");
                client.sql("SET TimeZone TO 'America/Lima'");
                client.sql(step);
                let within = show(client);
                client.sql("ROLLBACK TO s");
                let back = show(client);
                client.sql(step);
                client.sql(end);
                [within, back, show(client)].concat()
            });
        }
    }
}

#[test]
fn reset_that_fails_changes_nothing() {
    for pair in pairs() {
        let mut trio = pair.trio(&STARTUP);
        for failing in ["RESET ALL; SELECT 1 / 0", "RESET nonsense", "BEGIN; RESET ALL; SELECT 1 / 0; COMMIT"]
        {
            trio.same(|client| {
                client.sql("SET TimeZone TO 'Europe/Paris'");
                client.try_sql(failing).unwrap_err();
                client.sql("ROLLBACK");
                show(client)
            });
        }
        trio.same(|client| {
            client.sql("SET TimeZone TO 'Europe/Paris'");
            client.sql("BEGIN");
            client.try_sql("DISCARD ALL").unwrap_err();
            client.try_sql("RESET ALL").unwrap_err();
            client.sql("ROLLBACK");
            show(client)
        });
    }
}

#[test]
fn statements_behind_a_reset_in_the_pipeline_see_the_startup_values() {
    for pair in pairs() {
        pair.same_with_startup(&STARTUP, |client| {
            client.send_all(&[
                query("SET TimeZone TO 'Europe/Paris'"),
                query("SELECT 1 / 0"),
                query("SET TimeZone TO DEFAULT"),
                query("SHOW TimeZone"),
                parse("", "RESET ALL"),
                bind("", &[]),
                execute(),
                sync(),
                query("SHOW statement_timeout"),
                query("DISCARD ALL"),
                query("SHOW DateStyle"),
                sync(),
            ]);
            let frames = client.ready(8);
            assert_eq!(frames.iter().filter(|frame| frame.tag == b'E').count(), 1);
            frames.iter().filter(|frame| frame.tag == b'D').map(Frame::row).collect()
        });
    }
}

// A parameter that is reset while it has the server's default by the client's own wish.
#[test]
fn reset_counts_where_the_server_sees_no_change() {
    for pair in pairs() {
        let default = pair.direct(&[]).sql("SHOW TimeZone").remove(0);
        pair.same_with_startup(&STARTUP, |client| {
            client.sql(&format!("SET TimeZone TO '{default}'"));
            let set = show(client);
            client.sql("RESET TimeZone");
            [set, show(client)].concat()
        });
    }
}

// The replies themselves, one for one: nothing is told twice, and no value that does not stay.
#[test]
fn reset_reports_only_what_is_true_in_the_end() {
    for pair in pairs() {
        let script = |client: &mut Raw| {
            for sql in ["RESET ALL", "SET TimeZone TO 'Europe/Paris'", "RESET ALL", "DISCARD ALL", "SELECT 1"]
            {
                client.sql(sql);
            }
        };
        let (mut direct, mut pooled) = (pair.direct(&STARTUP), pair.pooled(&STARTUP));
        script(&mut direct);
        script(&mut pooled);
        assert_eq!(pooled.received, direct.received);
    }
}

// S43
#[test]
fn only_what_outlives_its_transaction_is_remembered() {
    for pair in pairs() {
        for end in ["COMMIT", "ROLLBACK"] {
            pair.same_with_startup(&[], |client| {
                client.sql("BEGIN");
                client.sql("SET TimeZone TO 'Europe/Paris'");
                client.sql("SET LOCAL DateStyle TO 'German'");
                client.sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ");
                let within = show(client);
                client.sql(end);
                [within, show(client), client.sql("SHOW transaction_isolation")].concat()
            });
        }
        pair.same_with_startup(&[], |client| {
            client.try_sql("SET TimeZone TO 'Europe/Paris'; SELECT 1 / 0").unwrap_err();
            let rolled_back = show(client);
            client.sql("BEGIN; SAVEPOINT s; SET TimeZone TO 'Europe/Paris'; ROLLBACK TO s; COMMIT");
            [rolled_back, show(client)].concat()
        });
    }
}

// S42: quotes, backslashes, nothing at all, lists.
#[test]
fn values_of_any_text_are_passed_on_unchanged() {
    let values = [
        ("application_name", ""),
        ("application_name", "it's \"quoted\" \\ and '' more"),
        ("application_name", "$$ ; -- /*"),
        ("search_path", ""),
        ("search_path", "\"\""),
        ("search_path", "\"$user\", public, \"it's\", \"a\"\"b\", \"c\\d\""),
        ("DateStyle", "SQL, DMY"),
        ("my.setting", "a, 'b' \\"),
        ("client_encoding", "LATIN1"),
    ];
    for pair in pairs() {
        for (name, value) in values {
            pair.same_with_startup(&[(name, value)], |client| {
                let first = client.sql(&format!("SELECT current_setting('{name}')"));
                client.sql("BEGIN; COMMIT");
                [first, client.sql(&format!("SELECT current_setting('{name}')"))].concat()
            });
        }
    }
}

// S42: with standard_conforming_strings off a backslash means something in a literal.
#[test]
fn values_are_quoted_for_servers_that_read_backslashes() {
    let pair = Pair::new();
    let more = [("standard_conforming_strings", "off"), ("application_name", "a\\'b\\\\c")];
    pair.same_with_startup(&more, |client| client.sql("SHOW application_name"));
}

// H17, S42: settings are put in front while the server still has the encoding of the client before.
#[test]
fn values_that_are_not_ascii_survive_the_encoding_of_another_client() {
    let pair = Pair::new();
    let mut utf8 = pair.pooled(&[("client_encoding", "UTF8"), ("search_path", "\"schön 東\", public")]);
    let mut others = ["LATIN1", "SJIS"].map(|encoding| pair.pooled(&[("client_encoding", encoding)]));
    for _ in 0..2 {
        for other in &mut others {
            other.sql("SELECT 1");
            assert_eq!(utf8.sql("SHOW search_path"), ["\"schön 東\", public"]);
        }
    }
}

// S42, H17: the server converts for each client as that client asked.
#[test]
fn client_encoding_is_really_switched() {
    let pair = Pair::new();
    let mut utf8 = pair.pooled(&[("client_encoding", "UTF8")]);
    let mut latin1 = pair.pooled(&[("client_encoding", "LATIN1")]);
    let mut sjis = pair.pooled(&[("client_encoding", "SJIS")]);
    for _ in 0..3 {
        for (client, text, bytes) in [
            (&mut utf8, "chr(252)", &b"\xc3\xbc"[..]),
            (&mut latin1, "chr(252)", b"\xfc"),
            (&mut sjis, "chr(12477)", b"\x83\x5c"),
        ] {
            client.send(&query(&format!("SELECT {text}")));
            let row = client.ready(1).into_iter().find(|frame| frame.tag == b'D').unwrap();
            assert!(row.body.ends_with(bytes), "{row:?}");
        }
    }
    latin1.sql("SET client_encoding TO 'UTF8'");
    assert!(latin1.received.iter().any(|frame| frame.body == b"client_encoding\0UTF8\0"));
}

// S42
#[test]
fn clients_with_other_settings_take_turns_on_one_server() {
    for pair in pairs() {
        let zones = ["Asia/Tokyo", "Europe/Paris", "America/Lima"];
        let mut clients: Vec<Raw> = zones.iter().map(|zone| pair.pooled(&[("TimeZone", zone)])).collect();
        clients[2].sql("SET DateStyle TO 'German'");
        for _ in 0..3 {
            for (client, zone) in clients.iter_mut().zip(zones) {
                let style = if zone == "America/Lima" { "German, DMY" } else { "ISO, MDY" };
                assert_eq!(
                    client.sql("SELECT current_setting('TimeZone'), current_setting('DateStyle')"),
                    [format!("{zone}|{style}")]
                );
            }
        }
    }
}

// S42
#[test]
fn equal_settings_are_not_set_again() {
    let pair = Pair::new();
    pair.database.sql(&format!("ALTER DATABASE {} SET log_statement TO 'all'", pair.database.name));
    let mut same: Vec<Raw> = (0..2).map(|_| pair.pooled(&STARTUP)).collect();
    let mut other = pair.pooled(&[("TimeZone", "Asia/Tokyo")]);
    for turn in 0..10 {
        same[turn % 2].sql(&format!("SELECT 'turn {turn} of {}'", pair.database.name));
    }
    other.sql(&format!("SELECT 'other of {}'", pair.database.name));
    same[0].sql(&format!("SELECT 'end of {}'", pair.database.name));
    let log = shared(Version::Distribution).primary.log();
    let mark = format!("app@{} ", pair.database.name);
    let lines: Vec<&str> = log
        .lines()
        .filter(|l| l.contains(&mark))
        .filter_map(|l| l.split_once("statement: "))
        .map(|l| l.1)
        .collect();
    let at = |text: &str| lines.iter().position(|line| line.contains(text)).unwrap();
    assert_eq!(at("turn 9 of") - at("turn 0 of"), 9, "{lines:#?}");
    // One query brings the other's settings, one brings these back.
    assert_eq!(at("other of") - at("turn 9 of"), 2, "{lines:#?}");
    assert!(lines[at("other of") - 1].contains("RESET \"statement_timeout\""), "{lines:#?}");
    assert_eq!(at("end of") - at("other of"), 2, "{lines:#?}");
}

// S42
#[test]
fn startup_value_that_the_server_refuses_is_its_own_error() {
    for pair in pairs() {
        for wrong in
            [("TimeZone", "Nowhere/At_all"), ("no_such_parameter", "1"), ("extra_float_digits", "99")]
        {
            let login = |port| {
                let mut client = Raw::open(port);
                client.try_login("app", &pair.database.name, &password_of("app"), &[wrong]).unwrap_err()
            };
            let (pooled, direct) = (login(pair.pooler.port), login(pair.database.port));
            for field in [b'V', b'C', b'M'] {
                assert_eq!(pooled.field(field), direct.field(field), "{wrong:?}");
            }
            // Nothing of it is left on the server.
            assert_eq!(show(&mut pair.pooled(&[])), show(&mut pair.direct(&[])));
        }
    }
}

// H22: a pool's servers may have other defaults than the one that told the first login.
#[test]
fn client_sees_one_set_of_parameters_on_all_servers() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 2"]);
    let pair = Pair { database, pooler };
    let mut client = pair.pooled(&[]);
    let before = show(&mut client);
    let mut holder = pair.pooled(&[]);
    holder.sql("BEGIN");
    pair.database.sql(&format!("ALTER DATABASE {} SET TimeZone TO 'Asia/Tokyo'", pair.database.name));
    // On the second server, whose own default is another.
    assert_eq!(show(&mut client), before);
    assert_eq!(pair.database.server_count(), 2);
    client.sql("RESET ALL");
    assert_eq!(show(&mut client), before);
    assert_eq!(client.received.iter().filter(|frame| frame.tag == b'S').count(), 0);
}

// The startup packet's own rules: names without case, the last of two counts.
#[test]
fn startup_packet_may_name_a_parameter_twice() {
    let pair = Pair::new();
    let more = [("timezone", "Asia/Tokyo"), ("TIMEZONE", "Europe/Paris"), ("options", "-c TimeZone=UTC")];
    pair.same_with_startup(&more, show);
}

/// Parameters that are new to the pooler are tried on a server; the client's first query may come while the answer is
/// read, and finds other servers idle.
#[test]
fn first_query_behind_new_startup_parameters_is_answered() {
    let pair = Pair::with(&["default_pool_size = 3"]);
    let mut holders: Vec<Raw> = (0..3).map(|_| pair.pooler.connect()).collect();
    for sql in ["BEGIN", "COMMIT"] {
        for holder in &mut holders {
            holder.sql(sql);
        }
    }
    for kilobytes in 2001..2021 {
        let mut client = pair.pooled(&[("options", &format!("-c work_mem={kilobytes}"))]);
        assert_eq!(client.sql("SHOW work_mem"), [format!("{kilobytes}kB")]);
    }
}
