//! sqlx with its defaults: a pool, binary format, a cache of 100 named statements per connection.

use std::{str::FromStr, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, future::join_all};
use pooler_driver_tests::{
    CLIENTS, Outcome, ROUNDS, STRICT, direct_url, marker, note, pool_size, server_exited,
    servers_were_shared, url,
};
use sqlx::{
    Connection, Decode, Encode, Error, Executor, PgConnection, Postgres, Row, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{
        PgArgumentBuffer, PgConnectOptions, PgDatabaseError, PgHasArrayType, PgListener, PgPoolOptions,
        PgTypeInfo, PgValueRef,
    },
    query, query_as, query_scalar,
    types::Json,
};

fn options() -> PgConnectOptions {
    PgConnectOptions::from_str(&url()).expect("DATABASE_URL")
}

async fn connect() -> Result<PgConnection, Error> {
    PgConnection::connect_with(&options()).await
}

async fn direct() -> Result<PgConnection, Error> {
    PgConnection::connect(&direct_url()).await
}

async fn server_of(connection: &mut PgConnection) -> Result<i32, Error> {
    query_scalar("select pg_backend_pid()").fetch_one(connection).await
}

async fn text_of(connection: &mut PgConnection, query: &'static str) -> Result<String, Error> {
    query_scalar(query).fetch_one(connection).await
}

/// Holds that server in a transaction of another client until the result is dropped: everybody else gets a
/// different one.
async fn server_taken(pid: i32) -> Outcome<Vec<PgConnection>> {
    let mut others = Vec::new();
    for _ in 0..pool_size() {
        let mut other = connect().await?;
        other.execute("begin").await?;
        let held = server_of(&mut other).await?;
        others.push(other);
        if held == pid {
            return Ok(others);
        }
    }
    assert_eq!(pool_size(), 0, "server {pid} has left the pool");
    Ok(others)
}

#[track_caller]
fn raises<T>(state: &str, result: Result<T, Error>) -> Box<PgDatabaseError> {
    match result {
        Ok(_) => panic!("no error instead of {state}"),
        Err(Error::Database(error)) => {
            assert_eq!(error.code().as_deref(), Some(state), "{error}");
            error.downcast()
        }
        Err(error) => panic!("{error} instead of {state}"),
    }
}

/// Many clients at once, each with its own connection; each returns the servers it met.
async fn crowd<F: Future<Output = Outcome<Vec<i32>>> + Send + 'static>(
    work: fn(PgConnection, usize) -> F,
) -> Outcome {
    let clients =
        join_all((0..CLIENTS).map(|_| connect())).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let tasks = clients.into_iter().enumerate().map(|(number, client)| tokio::spawn(work(client, number)));
    let mut pids = Vec::new();
    for done in join_all(tasks).await {
        pids.extend(done??);
    }
    servers_were_shared(pids);
    Ok(())
}

async fn wrong_password_is_refused() -> Outcome {
    let wrong = raises("28P01", PgConnection::connect_with(&options().password("wrong")).await);
    let direct = PgConnectOptions::from_str(&direct_url())?.password("wrong");
    let direct = raises("28P01", PgConnection::connect_with(&direct).await);
    assert_eq!(wrong.message(), direct.message());
    Ok(())
}

async fn values_of_many_types_round_trip() -> Outcome {
    let mut c = connect().await?;
    let text = "Ünïcödé ☃ 𝄞 '\"\\".to_owned();
    let document = serde_json::json!({"a": [1, {"b": null}], "ü": "☃"});
    let (numbers, words) =
        (vec![Some(1), None, Some(-3)], vec!["a".to_owned(), "quote \" comma , brace }".to_owned()]);
    let raw: Vec<u8> = (0..=255).collect();
    let row = query("select $1, $2, $3, $4, $5, $6, $7, $8, $9")
        .bind(&text)
        .bind(&numbers)
        .bind(&words)
        .bind(Json(&document))
        .bind(&raw)
        .bind(0.1 + 0.2)
        .bind(true)
        .bind(1_i64 << 40)
        .bind(None::<String>)
        .fetch_one(&mut c)
        .await?;
    assert_eq!(row.try_get::<String, _>(0)?, text);
    assert_eq!(row.try_get::<Vec<Option<i32>>, _>(1)?, numbers);
    assert_eq!(row.try_get::<Vec<String>, _>(2)?, words);
    assert_eq!(row.try_get::<serde_json::Value, _>(3)?, document);
    assert_eq!(row.try_get::<Vec<u8>, _>(4)?, raw);
    assert_eq!((row.try_get::<f64, _>(5)?, row.try_get::<bool, _>(6)?), (0.1 + 0.2, true));
    assert_eq!((row.try_get::<i64, _>(7)?, row.try_get::<Option<String>, _>(8)?), (1 << 40, None));
    let results = c.fetch_all("select 1; select 2; ").await?;
    assert_eq!(results.iter().map(|row| row.get::<i32, _>(0)).collect::<Vec<_>>(), [1, 2]);
    Ok(())
}

/// A type of the database, found by its name when it is first bound.
#[derive(Clone, Debug, PartialEq)]
struct Mood(String);

impl Type<Postgres> for Mood {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("sqlx_mood")
    }
}

impl PgHasArrayType for Mood {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("_sqlx_mood")
    }
}

impl Encode<'_, Postgres> for Mood {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode_by_ref(&self.0, buffer)
    }
}

impl Decode<'_, Postgres> for Mood {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Self(value.as_str()?.to_owned()))
    }
}

async fn user_defined_types_are_introspected() -> Outcome {
    let mut c = connect().await?;
    c.execute("drop type if exists sqlx_mood; create type sqlx_mood as enum ('sad', 'happy')").await?;
    for mut c in [connect().await?, connect().await?] {
        let (sad, happy) = (Mood("sad".to_owned()), Mood("happy".to_owned()));
        let (one, many): (Mood, Vec<Mood>) = query_as("select $1, $2")
            .bind(&happy)
            .bind(vec![sad.clone(), happy.clone()])
            .fetch_one(&mut c)
            .await?;
        assert_eq!((one, many), (happy.clone(), vec![sad, happy]));
    }
    Ok(())
}

async fn values_of_ten_megabytes_round_trip() -> Outcome {
    let mut c = connect().await?;
    let (text, raw) = ("☃x".repeat(2_600_000), vec![7_u8; 10_000_000]);
    let got: (String, Vec<u8>) = query_as("select $1, $2").bind(&text).bind(&raw).fetch_one(&mut c).await?;
    assert!(got.0 == text && got.1 == raw);
    Ok(())
}

async fn cached_statements_work_across_servers() -> Outcome {
    crowd(|mut c, number| async move {
        let mut pids = Vec::new();
        let n = i32::try_from(number)?;
        for turn in 0..ROUNDS {
            let (text, step) = (marker(number, turn), i32::try_from(turn)?);
            let (pid, double, mine): (i32, i32, String) =
                query_as("select pg_backend_pid(), $1 * 2, $2").bind(n).bind(&text).fetch_one(&mut c).await?;
            assert_eq!((double, mine), (n * 2, text));
            pids.push(pid);
            // sqlx numbers its names the same way in every client, here for different texts.
            let own = &format!("select {number} + $1");
            assert_eq!(query_scalar::<_, i32>(own).bind(step).fetch_one(&mut c).await?, n + step);
            let unnamed = query_scalar::<_, i32>("select $1").bind(step).persistent(false);
            assert_eq!(unnamed.fetch_one(&mut c).await?, step);
        }
        Ok(pids)
    })
    .await
}

async fn prepared_statement_follows_its_client_to_another_server() -> Outcome {
    let mut c = connect().await?;
    let ask = "select pg_backend_pid(), $1 + 1";
    let (first, _): (i32, i32) = query_as(ask).bind(1).fetch_one(&mut c).await?;
    let _taken = server_taken(first).await?;
    let (second, got): (i32, i32) = query_as(ask).bind(2).fetch_one(&mut c).await?;
    assert_eq!(got, 3);
    assert!(pool_size() == 0 || first != second);
    Ok(())
}

async fn more_statements_than_the_cache_holds() -> Outcome {
    let mut c = PgConnection::connect_with(&options().statement_cache_capacity(5)).await?;
    for _ in 0..3 {
        for n in 0..30 {
            let got: i32 = query_scalar(&format!("select {n} + $1")).bind(1).fetch_one(&mut c).await?;
            assert_eq!(got, n + 1);
        }
    }
    assert_eq!(c.cached_statements_size(), 5);
    c.clear_cached_statements().await?;
    assert_eq!(query_scalar::<_, i32>("select 29 + $1").bind(1).fetch_one(&mut c).await?, 30);
    Ok(())
}

async fn transactions_commit_roll_back_and_nest() -> Outcome {
    let (mut c, mut direct) = (connect().await?, direct().await?);
    c.execute("drop table if exists sqlx_tx; create table sqlx_tx (id int primary key)").await?;
    let mut ids =
        async || query_scalar::<_, i32>("select id from sqlx_tx order by id").fetch_all(&mut direct).await;
    let mut tx = c.begin().await?;
    tx.execute("insert into sqlx_tx values (1)").await?;
    let mut inner = tx.begin().await?;
    inner.execute("insert into sqlx_tx values (2)").await?;
    raises("23505", query("insert into sqlx_tx values ($1)").bind(1).execute(&mut *inner).await);
    raises("25P02", query("select $1").bind(1).execute(&mut *inner).await);
    inner.rollback().await?;
    let mut inner = tx.begin().await?;
    inner.execute("insert into sqlx_tx values (3)").await?;
    inner.commit().await?;
    assert!(ids().await?.is_empty());
    tx.commit().await?;
    assert_eq!(ids().await?, [1, 3]);
    let mut tx = c.begin().await?;
    tx.execute("delete from sqlx_tx").await?;
    drop(tx); // rolls back with the next query
    assert_eq!(query_scalar::<_, i64>("select count(*) from sqlx_tx").fetch_one(&mut c).await?, 2);
    let mut tx = c.begin_with("begin isolation level serializable read only").await?;
    assert_eq!(text_of(&mut tx, "show transaction_isolation").await?, "serializable");
    raises("25006", tx.execute("delete from sqlx_tx").await);
    tx.rollback().await?;
    assert_eq!(text_of(&mut c, "show transaction_isolation").await?, "read committed");
    assert_eq!(ids().await?, [1, 3]);
    Ok(())
}

async fn errors_keep_their_sqlstate_and_the_connection() -> Outcome {
    let mut c = connect().await?;
    c.execute("drop table if exists sqlx_errors; create table sqlx_errors (id int primary key)").await?;
    c.execute("insert into sqlx_errors values (1)").await?;
    for _ in 0..3 {
        let error =
            raises("23505", query("insert into sqlx_errors values ($1)").bind(1).execute(&mut c).await);
        assert_eq!(error.constraint(), Some("sqlx_errors_pkey"));
        raises("42601", query("select 1 frm x").execute(&mut c).await);
        raises("22012", query("select 1 / $1").bind(0).execute(&mut c).await);
        raises("22012", c.execute("select 1; select 1/0; select 2").await);
        raises("42P01", query("select * from no_such_table").execute(&mut c).await);
        assert_eq!(query_scalar::<_, i32>("select 1").fetch_one(&mut c).await?, 1);
    }
    Ok(())
}

async fn rows_are_streamed_and_streams_can_be_left() -> Outcome {
    let mut c = connect().await?;
    let mut sum = 0_i64;
    let mut rows =
        query_scalar::<_, i32>("select n from generate_series(1, $1) n").bind(100_000).fetch(&mut c);
    while let Some(n) = rows.try_next().await? {
        sum += i64::from(n);
    }
    drop(rows);
    assert_eq!(sum, 5_000_050_000);
    for n in 0..5 {
        let rows = query_scalar::<_, i32>("select n from generate_series($1, 50000) n").bind(n).fetch(&mut c);
        assert_eq!(rows.take(2).try_collect::<Vec<_>>().await?, [n, n + 1]);
        assert_eq!(query_scalar::<_, i32>("select $1").bind(n).fetch_one(&mut c).await?, n);
        // The same by a query that is dropped while it runs: sqlx has no cancel.
        let slow = query("select 'late', pg_sleep(0.2)").execute(&mut c);
        assert!(tokio::time::timeout(Duration::from_millis(20), slow).await.is_err());
        assert_eq!(query_scalar::<_, i32>("select $1 + 1").bind(n).fetch_one(&mut c).await?, n + 1);
    }
    Ok(())
}

async fn copy_in_and_out() -> Outcome {
    let mut c = connect().await?;
    c.execute("drop table if exists sqlx_copy; create table sqlx_copy (id int primary key, body text)")
        .await?;
    let text: String = (0..20_000).map(|n| format!("{n}\tline {n} ☃\n")).collect();
    let mut copy = c.copy_in_raw("copy sqlx_copy from stdin").await?;
    for chunk in text.as_bytes().chunks(7001) {
        copy.send(chunk).await?;
    }
    assert_eq!(copy.finish().await?, 20_000);
    let out: Vec<Bytes> =
        c.copy_out_raw("copy (select * from sqlx_copy order by id) to stdout").await?.try_collect().await?;
    assert_eq!(out.concat(), text.as_bytes());
    let mut copy = c.copy_in_raw("copy sqlx_copy from stdin").await?;
    copy.send(&b"90000\tgiven up\n"[..]).await?;
    copy.abort("given up").await?;
    let mut copy = c.copy_in_raw("copy sqlx_copy from stdin").await?;
    copy.send(&b"x\ty\n"[..]).await?;
    raises("22P02", copy.finish().await);
    raises("42P01", c.copy_in_raw("copy no_such_table from stdin").await.map(|_| ()));
    assert_eq!(query_scalar::<_, i64>("select count(*) from sqlx_copy").fetch_one(&mut c).await?, 20_000);
    Ok(())
}

async fn statement_timeout_of_a_transaction_ends_with_it() -> Outcome {
    let mut c = connect().await?;
    let mut tx = c.begin().await?;
    tx.execute("set local statement_timeout = 50").await?;
    raises("57014", query("select pg_sleep(30)").execute(&mut *tx).await);
    tx.rollback().await?;
    assert_eq!(text_of(&mut c, "show statement_timeout").await?, "0");
    Ok(())
}

async fn notifications_reach_their_client() -> Outcome {
    let mut listener = PgListener::connect(&url()).await?;
    listener.listen_all(["sqlx_news", "sqlx_other"]).await?;
    let mut sender = connect().await?;
    for n in 0..50 {
        query("select pg_notify('sqlx_news', $1)").bind(n.to_string()).execute(&mut sender).await?;
    }
    for n in 0..50 {
        let news = listener.recv().await?;
        assert_eq!((news.channel(), news.payload()), ("sqlx_news", &*n.to_string()));
    }
    // Between its notifications the listener works as everybody else.
    assert_eq!(query_scalar::<_, i32>("select 1").fetch_one(&mut listener).await?, 1);
    listener.unlisten_all().await?;
    Ok(())
}

async fn parameters_follow_the_client() -> Outcome {
    let options = options().application_name("sqlx check").options([("geqo", "off")]);
    let (mut c, mut other) = (PgConnection::connect_with(&options).await?, connect().await?);
    // sqlx asks for UTC and ISO dates when it connects.
    assert_eq!(text_of(&mut c, "show timezone").await?, "UTC");
    c.execute("set timezone to 'Asia/Tokyo'").await?;
    let _taken = server_taken(server_of(&mut c).await?).await?;
    assert_eq!(text_of(&mut c, "show timezone").await?, "Asia/Tokyo");
    assert_eq!(text_of(&mut c, "show application_name").await?, "sqlx check");
    assert_eq!(text_of(&mut other, "show timezone").await?, "UTC");
    note("options", format!("geqo={}", text_of(&mut c, "show geqo").await?));
    Ok(())
}

async fn pool_of_the_driver_shares_servers() -> Outcome {
    let pool = PgPoolOptions::new().max_connections(20).min_connections(5).connect(&url()).await?;
    let tasks = (0..500).map(|n| {
        let pool = pool.clone();
        tokio::spawn(async move {
            if n % 2 == 0 {
                let got: (i32, i32) =
                    query_as("select pg_backend_pid(), $1").bind(n).fetch_one(&pool).await?;
                assert_eq!(got.1, n);
                return Ok(got.0);
            }
            let mut tx = pool.begin().await?;
            let (pid, got): (i32, i32) =
                query_as("select pg_backend_pid(), $1").bind(n).fetch_one(&mut *tx).await?;
            assert_eq!((server_of(&mut tx).await?, got), (pid, n));
            // Every other one is left without an end.
            if n % 4 == 1 {
                tx.commit().await?;
            }
            Outcome::Ok(pid)
        })
    });
    let mut pids = Vec::new();
    for done in join_all(tasks).await {
        pids.push(done??);
    }
    servers_were_shared(pids);
    pool.close().await;
    Ok(())
}

async fn no_client_sees_the_answer_of_another() -> Outcome {
    crowd(|mut c, number| async move {
        let mut pids = Vec::new();
        for turn in 0..ROUNDS {
            let mut tx = c.begin().await?;
            let pid = server_of(&mut tx).await?;
            let text = marker(number, turn);
            assert_eq!(query_scalar::<_, String>("select $1").bind(&text).fetch_one(&mut *tx).await?, text);
            tx.execute(&*format!("set local suite.mine = '{number}'")).await?;
            if turn % 4 == 0 {
                let mut savepoint = tx.begin().await?;
                raises("22012", query("select 1/0").execute(&mut *savepoint).await);
                savepoint.rollback().await?;
            }
            assert_eq!(text_of(&mut tx, "select current_setting('suite.mine')").await?, number.to_string());
            assert_eq!(server_of(&mut tx).await?, pid);
            tx.commit().await?;
            pids.push(pid);
        }
        Ok(pids)
    })
    .await
}

async fn result_type_changed_by_ddl() -> Outcome {
    let (mut c, mut direct) = (connect().await?, direct().await?);
    direct
        .execute(
            "drop table if exists sqlx_ddl; create table sqlx_ddl (a int); insert into sqlx_ddl values (1)",
        )
        .await?;
    c.execute(STRICT).await?;
    query("select * from sqlx_ddl").fetch_one(&mut c).await?;
    direct.execute("alter table sqlx_ddl add column b text default 'new'").await?;
    let got = query("select * from sqlx_ddl").fetch_one(&mut c).await;
    note(
        "result_type_changed",
        got.map_or_else(|error| error.to_string(), |row| format!("{} columns", row.len())),
    );
    assert_eq!(text_of(&mut c, "select b from sqlx_ddl").await?, "new");
    Ok(())
}

async fn lost_server_is_one_error_and_then_work_goes_on() -> Outcome {
    let pool = PgPoolOptions::new().max_connections(1).connect(&url()).await?;
    let mut tx = pool.begin().await?;
    let pid = server_of(&mut tx).await?;
    query("select pg_terminate_backend($1)").bind(pid).execute(&mut direct().await?).await?;
    server_exited(pid).await?;
    match query("select 1").execute(&mut *tx).await {
        Ok(_) => panic!("went on without its server"),
        Err(Error::Database(error)) => {
            assert!(
                error.code().is_some_and(|code| code.starts_with("57") || code.starts_with("08")),
                "{error}"
            );
        }
        Err(Error::Io(_)) => {}
        Err(error) => panic!("{error}"),
    }
    drop(tx);
    assert_eq!(query_scalar::<_, i32>("select 1").fetch_one(&pool).await?, 1);
    Ok(())
}

pooler_driver_tests::run! {
    wrong_password_is_refused,
    values_of_many_types_round_trip,
    user_defined_types_are_introspected,
    values_of_ten_megabytes_round_trip,
    cached_statements_work_across_servers,
    prepared_statement_follows_its_client_to_another_server,
    more_statements_than_the_cache_holds,
    transactions_commit_roll_back_and_nest,
    errors_keep_their_sqlstate_and_the_connection,
    rows_are_streamed_and_streams_can_be_left,
    copy_in_and_out,
    statement_timeout_of_a_transaction_ends_with_it,
    notifications_reach_their_client,
    parameters_follow_the_client,
    pool_of_the_driver_shares_servers,
    no_client_sees_the_answer_of_another,
    result_type_changed_by_ddl,
    lost_server_is_one_error_and_then_work_goes_on,
}
