//! tokio-postgres with its defaults (binary format, named statements, pipelines), and deadpool on top of it.

use std::{
    ops::Deref,
    pin::pin,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use futures_util::{SinkExt, StreamExt, TryStreamExt, future::join_all, stream};
use pooler_driver_tests::{
    CLIENTS, Outcome, ROUNDS, STRICT, direct_url, marker, node_urls, note, pool_size, server_exited,
    servers_were_shared, until, url,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_postgres::{
    AsyncMessage, Config, Error, GenericClient, IsolationLevel, NoTls, SimpleQueryMessage,
    binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream},
    types::{Kind, Type},
};

/// A client, and the messages that came to it outside of queries.
struct Client {
    inner: tokio_postgres::Client,
    messages: mpsc::UnboundedReceiver<AsyncMessage>,
    connection: JoinHandle<()>,
}

impl Deref for Client {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl Client {
    /// Says goodbye and waits until the connection is closed.
    async fn close(self) -> Outcome {
        drop(self.inner);
        Ok(self.connection.await?)
    }
}

async fn open(config: &Config) -> Result<Client, Error> {
    let (inner, mut connection) = config.connect(NoTls).await?;
    let (sender, messages) = mpsc::unbounded_channel();
    let connection = tokio::spawn(async move {
        // An error ends the connection, and is told to the query that waits.
        let mut stream = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = stream.next().await {
            let _ = sender.send(message);
        }
    });
    Ok(Client { inner, messages, connection })
}

async fn connect() -> Result<Client, Error> {
    open(&config()).await
}

async fn direct() -> Result<Client, Error> {
    open(&direct_url().parse()?).await
}

fn config() -> Config {
    url().parse().expect("DATABASE_URL")
}

async fn server_of(client: &impl GenericClient) -> Result<i32, Error> {
    Ok(client.query_one("select pg_backend_pid()", &[]).await?.get(0))
}

async fn text_of(client: &impl GenericClient, query: &str) -> Result<String, Error> {
    Ok(client.query_one(query, &[]).await?.get(0))
}

/// Holds that server in a transaction of another client until the result is dropped: everybody else gets a
/// different one.
async fn server_taken(pid: i32) -> Outcome<Vec<Client>> {
    let mut others = Vec::new();
    for _ in 0..pool_size() {
        let other = connect().await?;
        other.batch_execute("begin").await?;
        let held = server_of(&other.inner).await?;
        others.push(other);
        if held == pid {
            return Ok(others);
        }
    }
    assert_eq!(pool_size(), 0, "server {pid} has left the pool");
    Ok(others)
}

#[track_caller]
fn raises<T>(state: &str, result: Result<T, Error>) -> Error {
    match result {
        Ok(_) => panic!("no error instead of {state}"),
        Err(error) => {
            assert_eq!(error.code().map(|code| code.code()), Some(state), "{error}");
            error
        }
    }
}

/// Many clients at once, each with its own connection; each returns the servers it met.
async fn crowd<F: Future<Output = Outcome<Vec<i32>>> + Send + 'static>(
    work: fn(Client, usize) -> F,
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
    let error = raises("28P01", open(config().password("wrong")).await);
    let direct = raises("28P01", open(direct_url().parse::<Config>()?.password("wrong")).await);
    let message = |error: &Error| error.as_db_error().map(|error| error.message().to_owned());
    assert_eq!(message(&error), message(&direct));
    raises("28P01", open(config().user("nobody")).await);
    Ok(())
}

async fn values_of_many_types_round_trip() -> Outcome {
    let c = connect().await?;
    let text = "Ünïcödé ☃ 𝄞 '\"\\".to_owned();
    let when = SystemTime::UNIX_EPOCH + Duration::from_micros(1_709_209_815_123_456);
    let document = serde_json::json!({"a": [1, {"b": null}], "ü": "☃"});
    let (numbers, words) =
        (vec![Some(1), None, Some(-3)], vec!["a".to_owned(), "quote \" comma , brace }".to_owned()]);
    let raw: Vec<u8> = (0..=255).collect();
    let row = c
        .query_one(
            "select $1::text, $2::int4[], $3::text[], $4::jsonb, $5::timestamptz, $6::bytea, $7::float8, $8::bool, \
             $9::int8, $10::int2, $11::text",
            &[&text, &numbers, &words, &document, &when, &raw, &(0.1 + 0.2), &true, &(1_i64 << 40), &-7_i16, &None::<&str>],
        )
        .await?;
    assert_eq!(row.get::<_, String>(0), text);
    assert_eq!(row.get::<_, Vec<Option<i32>>>(1), numbers);
    assert_eq!(row.get::<_, Vec<String>>(2), words);
    assert_eq!(row.get::<_, serde_json::Value>(3), document);
    assert_eq!(row.get::<_, SystemTime>(4), when);
    assert_eq!(row.get::<_, Vec<u8>>(5), raw);
    assert_eq!((row.get::<_, f64>(6), row.get::<_, bool>(7)), (0.1 + 0.2, true));
    assert_eq!((row.get::<_, i64>(8), row.get::<_, i16>(9)), (1 << 40, -7));
    assert_eq!(row.get::<_, Option<String>>(10), None);
    Ok(())
}

async fn user_defined_types_are_introspected() -> Outcome {
    let c = connect().await?;
    c.batch_execute(
        "drop type if exists tokio_pair; drop type if exists tokio_mood; create type tokio_mood as enum ('sad', 'happy');
         create type tokio_pair as (mood tokio_mood, weights int[])",
    )
    .await?;
    let statement = c.prepare("select $1::tokio_mood, $2::tokio_pair[]").await?;
    let Kind::Enum(words) = statement.params()[0].kind() else { panic!("{:?}", statement.params()) };
    assert_eq!(words, &["sad", "happy"]);
    let Kind::Array(pair) = statement.columns()[1].type_().kind() else {
        panic!("{:?}", statement.columns())
    };
    let Kind::Composite(fields) = pair.kind() else { panic!("{pair:?}") };
    assert_eq!(fields.iter().map(|field| field.name()).collect::<Vec<_>>(), ["mood", "weights"]);
    Ok(())
}

async fn values_of_ten_megabytes_round_trip() -> Outcome {
    let c = connect().await?;
    let (text, raw) = ("☃x".repeat(2_600_000), vec![7_u8; 10_000_000]);
    let row = c.query_one("select $1::text, $2::bytea", &[&text, &raw]).await?;
    assert!(row.get::<_, &str>(0) == text && row.get::<_, &[u8]>(1) == raw);
    Ok(())
}

async fn named_statements_work_across_servers() -> Outcome {
    crowd(|c, number| async move {
        let mut pids = Vec::new();
        let shared = c.prepare("select pg_backend_pid(), $1::int * 2, $2::text").await?;
        let own = c.prepare(&format!("select {number} + $1::int")).await?;
        let n = i32::try_from(number)?;
        for turn in 0..ROUNDS {
            let (text, step) = (marker(number, turn), i32::try_from(turn)?);
            let row = c.query_one(&shared, &[&n, &text]).await?;
            assert_eq!((row.get(1), row.get(2)), (n * 2, text));
            pids.push(row.get(0));
            assert_eq!(c.query_one(&own, &[&step]).await?.get::<_, i32>(0), n + step);
            // Prepared, executed and closed at once.
            assert_eq!(c.query_one("select $1::int", &[&step]).await?.get::<_, i32>(0), step);
            // Without a name, all in one message.
            let row = c.query_typed_one("select $1 + 1", &[(&step, Type::INT4)]).await?;
            assert_eq!(row.get::<_, i32>(0), step + 1);
        }
        Ok(pids)
    })
    .await
}

async fn prepared_statement_follows_its_client_to_another_server() -> Outcome {
    let c = connect().await?;
    let statement = c.prepare("select pg_backend_pid(), $1::int + 1").await?;
    let first: i32 = c.query_one(&statement, &[&1]).await?.get(0);
    let _taken = server_taken(first).await?;
    let row = c.query_one(&statement, &[&2]).await?;
    assert_eq!(row.get::<_, i32>(1), 3);
    assert!(pool_size() == 0 || row.get::<_, i32>(0) != first);
    Ok(())
}

async fn pipelined_queries_answer_in_order() -> Outcome {
    let c = connect().await?;
    let statement = c.prepare("select $1::int, 10 / ($1::int % 10)").await?;
    // Polled together, the queries leave together; an error fails its own query only.
    let numbers: Vec<i32> = (0..1000).collect();
    let got = join_all(numbers.iter().map(|n| {
        let (c, statement) = (&c, &statement);
        async move { c.query_one(statement, &[n]).await.map(|row| row.get::<_, i32>(0)) }
    }))
    .await;
    for (n, got) in numbers.iter().zip(got) {
        if n % 10 == 0 {
            raises("22012", got);
        } else {
            assert_eq!(got?, *n);
        }
    }
    // 20 MB out while 20 MB come in: whoever stops reading one side blocks for ever.
    let body = "z".repeat(100_000);
    let wide = c.prepare("select $1::text").await?;
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&body];
    for row in join_all((0..200).map(|_| c.query_one(&wide, &parameters))).await {
        assert!(row?.get::<_, &str>(0) == body);
    }
    Ok(())
}

async fn simple_queries_hold_many_statements() -> Outcome {
    let c = connect().await?;
    let got = c.simple_query("select 1; select 'two', null; ").await?;
    let rows: Vec<_> = got
        .iter()
        .filter_map(|message| {
            if let SimpleQueryMessage::Row(row) = message { Some((row.get(0), row.len())) } else { None }
        })
        .collect();
    assert_eq!(rows, [(Some("1"), 1), (Some("two"), 2)]);
    assert!(matches!(c.simple_query("").await?[..], [SimpleQueryMessage::CommandComplete(0)]));
    raises("22012", c.batch_execute("create table tokio_never (a int); select 1/0").await);
    raises("42P01", c.query("select * from tokio_never", &[]).await);
    Ok(())
}

async fn transactions_commit_roll_back_and_nest() -> Outcome {
    let (mut c, direct) = (connect().await?, direct().await?);
    c.batch_execute("drop table if exists tokio_tx; create table tokio_tx (id int primary key)").await?;
    let ids = async || -> Outcome<Vec<i32>> {
        Ok(direct
            .query("select id from tokio_tx order by id", &[])
            .await?
            .iter()
            .map(|row| row.get(0))
            .collect())
    };
    let mut tx = c.inner.transaction().await?;
    tx.execute("insert into tokio_tx values (1)", &[]).await?;
    let inner = tx.transaction().await?;
    inner.execute("insert into tokio_tx values (2)", &[]).await?;
    raises("23505", inner.execute("insert into tokio_tx values (1)", &[]).await);
    raises("25P02", inner.query("select 1", &[]).await);
    inner.rollback().await?;
    let named = tx.savepoint("named").await?;
    named.execute("insert into tokio_tx values (3)", &[]).await?;
    named.commit().await?;
    assert!(ids().await?.is_empty());
    tx.commit().await?;
    assert_eq!(ids().await?, [1, 3]);
    let tx = c.inner.transaction().await?;
    tx.execute("delete from tokio_tx", &[]).await?;
    drop(tx); // rolls back, without waiting
    assert_eq!(c.query("select from tokio_tx", &[]).await?.len(), 2);
    let tx = c
        .inner
        .build_transaction()
        .isolation_level(IsolationLevel::Serializable)
        .read_only(true)
        .start()
        .await?;
    assert_eq!(text_of(&tx, "show transaction_isolation").await?, "serializable");
    raises("25006", tx.execute("delete from tokio_tx", &[]).await);
    tx.rollback().await?;
    assert_eq!(text_of(&c.inner, "show transaction_isolation").await?, "read committed");
    assert_eq!(ids().await?, [1, 3]);
    Ok(())
}

async fn errors_keep_their_sqlstate_and_the_connection() -> Outcome {
    let c = connect().await?;
    c.batch_execute("drop table if exists tokio_errors; create table tokio_errors (id int primary key)")
        .await?;
    c.batch_execute("insert into tokio_errors values (1)").await?;
    for _ in 0..3 {
        let error = raises("23505", c.execute("insert into tokio_errors values ($1)", &[&1]).await);
        assert_eq!(error.as_db_error().and_then(|error| error.constraint()), Some("tokio_errors_pkey"));
        raises("42601", c.query("select 1 frm x", &[]).await);
        raises("22012", c.query("select 1 / $1::int", &[&0]).await);
        raises("42P01", c.query("select * from no_such_table", &[]).await);
        assert_eq!(c.query_one("select 1", &[]).await?.get::<_, i32>(0), 1);
    }
    Ok(())
}

async fn portals_read_in_portions() -> Outcome {
    let mut c = connect().await?;
    let tx = c.inner.transaction().await?;
    let a = tx.bind("select n from generate_series(1, $1::int) n", &[&100]).await?;
    let b = tx.bind("select -n from generate_series(1, 10) n", &[]).await?;
    let mut seen = Vec::new();
    loop {
        let rows = tx.query_portal(&a, 7).await?;
        seen.extend(rows.iter().map(|row| row.get::<_, i32>(0)));
        if rows.len() < 7 {
            break;
        }
        if seen.len() == 49 {
            assert_eq!(tx.query_portal(&b, 0).await?.len(), 10);
        }
    }
    assert!(seen.iter().copied().eq(1..=100));
    tx.commit().await?;
    Ok(())
}

async fn copy_in_and_out() -> Outcome {
    let c = connect().await?;
    c.batch_execute(
        "drop table if exists tokio_copy; create table tokio_copy (id int primary key, body text)",
    )
    .await?;
    let types = [Type::INT4, Type::TEXT];
    let sink = c.copy_in("copy tokio_copy from stdin (format binary)").await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
    for n in 0..20_000 {
        writer.as_mut().write(&[&n, &(n % 7 != 0).then(|| format!("tab\t line\n {n} ☃"))]).await?;
    }
    assert_eq!(writer.finish().await?, 20_000);
    let stream = c.copy_out("copy (select * from tokio_copy order by id) to stdout (format binary)").await?;
    let rows: Vec<_> = BinaryCopyOutStream::new(stream, &types).try_collect().await?;
    assert_eq!(rows.len(), 20_000);
    assert_eq!((rows[8].get::<i32>(0), rows[8].get::<&str>(1)), (8, "tab\t line\n 8 ☃"));
    let text: Vec<Bytes> = c.copy_out("copy tokio_copy to stdout").await?.try_collect().await?;

    c.batch_execute("truncate tokio_copy").await?;
    let mut sink = pin!(c.copy_in("copy tokio_copy from stdin").await?);
    for chunk in text {
        sink.send(chunk).await?;
    }
    assert_eq!(sink.finish().await?, 20_000);
    // The error comes while the driver still sends.
    let mut sink = pin!(c.copy_in::<_, Bytes>("copy tokio_copy from stdin").await?);
    for _ in 0..1000 {
        if sink.feed(Bytes::from_static(b"x\ty\n")).await.is_err() {
            break;
        }
    }
    raises("22P02", sink.finish().await);
    // A sink that is dropped sends CopyFail, a stream that is dropped is read to its end.
    let mut sink = Box::pin(c.copy_in("copy tokio_copy from stdin").await?);
    sink.send(Bytes::from_static(b"90000\tgiven up\n")).await?;
    drop(sink);
    let mut stream = Box::pin(c.copy_out("copy tokio_copy to stdout").await?);
    assert!(stream.next().await.is_some());
    drop(stream);
    assert_eq!(c.query_one("select count(*) from tokio_copy", &[]).await?.get::<_, i64>(0), 20_000);
    Ok(())
}

async fn cancel_stops_the_query_and_spares_the_connection() -> Outcome {
    let (mut c, bystander) = (connect().await?, connect().await?);
    let mut nodes = Vec::new();
    for url in node_urls() {
        nodes.push(open(&url.parse()?).await?);
    }
    let query = "select pg_sleep(30), 'tokio'";
    for _ in 0..3 {
        let token = c.cancel_token();
        let cancel = async {
            until("the query runs", async || {
                let running =
                    "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and query = $1";
                let mut count = 0;
                for node in &nodes {
                    count += node.query_one(running, &[&query]).await?.get::<_, i64>(0);
                }
                Ok(count == 1)
            })
            .await?;
            Ok::<_, pooler_driver_tests::Failure>(token.cancel_query(NoTls).await?)
        };
        let (stopped, cancelled) = tokio::join!(c.query(query, &[]), cancel);
        cancelled?;
        raises("57014", stopped);
        assert_eq!(c.query_one("select 1", &[]).await?.get::<_, i32>(0), 1);
        assert_eq!(bystander.query_one("select 2 from pg_sleep(0.01)", &[]).await?.get::<_, i32>(0), 2);
    }
    // An idle client's cancel stops nobody.
    bystander.cancel_token().cancel_query(NoTls).await?;
    c.query("select pg_sleep(0.05)", &[]).await?;
    let tx = c.inner.transaction().await?;
    tx.batch_execute("set local statement_timeout = 50").await?;
    raises("57014", tx.query("select pg_sleep(30)", &[]).await);
    tx.rollback().await?;
    assert_eq!(text_of(&c.inner, "show statement_timeout").await?, "0");
    Ok(())
}

async fn abandoned_query_does_not_answer_the_next() -> Outcome {
    let c = connect().await?;
    for n in 0..5 {
        let slow = c.query("select 'late', pg_sleep(0.2)", &[]);
        assert!(tokio::time::timeout(Duration::from_millis(20), slow).await.is_err());
        assert_eq!(c.query_one("select $1::int", &[&n]).await?.get::<_, i32>(0), n);
    }
    Ok(())
}

async fn notifications_and_notices_reach_their_client() -> Outcome {
    let (mut listener, sender) = (connect().await?, connect().await?);
    listener.batch_execute("listen tokio_news").await?;
    for n in 0..50 {
        sender.execute("select pg_notify('tokio_news', $1)", &[&n.to_string()]).await?;
    }
    for n in 0..50 {
        match listener.messages.recv().await {
            Some(AsyncMessage::Notification(news)) => {
                assert_eq!((news.channel(), news.payload()), ("tokio_news", &*n.to_string()))
            }
            other => panic!("{other:?} instead of notification {n}"),
        }
    }
    // Between its notifications the listener works as everybody else.
    assert_eq!(listener.query_one("select 1", &[]).await?.get::<_, i32>(0), 1);
    listener.batch_execute("do $$ begin raise notice 'mine'; end $$").await?;
    match listener.messages.recv().await {
        Some(AsyncMessage::Notice(notice)) => assert_eq!(notice.message(), "mine"),
        other => panic!("{other:?} instead of the notice"),
    }
    listener.batch_execute("unlisten *").await?;
    sender.batch_execute("notify tokio_news").await?;
    listener.query("select 1", &[]).await?;
    listener.close().await?;
    sender.close().await
}

async fn parameters_follow_the_client() -> Outcome {
    let c = open(config().application_name("tokio check").options("-c geqo=off")).await?;
    let other = connect().await?;
    c.batch_execute("set timezone to 'Asia/Tokyo'").await?;
    let _taken = server_taken(server_of(&c.inner).await?).await?;
    assert_eq!(text_of(&c.inner, "show timezone").await?, "Asia/Tokyo");
    assert_eq!(text_of(&c.inner, "show application_name").await?, "tokio check");
    assert_ne!(text_of(&other.inner, "show timezone").await?, "Asia/Tokyo");
    note("options", format!("geqo={}", text_of(&c.inner, "show geqo").await?));
    Ok(())
}

async fn deadpool_shares_servers_and_cleans_up() -> Outcome {
    for recycling_method in [RecyclingMethod::Fast, RecyclingMethod::Verified, RecyclingMethod::Clean] {
        let manager = Manager::from_config(config(), NoTls, ManagerConfig { recycling_method });
        let pool = Pool::builder(manager).max_size(20).build()?;
        let tasks = (0..300).map(|n| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut c = pool.get().await?;
                let tx = c.transaction().await?;
                let statement = tx.prepare_cached("select pg_backend_pid(), $1::int").await?;
                let row = tx.query_one(&statement, &[&n]).await?;
                assert_eq!(row.get::<_, i32>(1), n);
                tx.commit().await?;
                Outcome::Ok(row.get(0))
            })
        });
        let mut pids = Vec::new();
        for done in join_all(tasks).await {
            pids.push(done??);
        }
        servers_were_shared(pids);
        pool.close();
    }
    Ok(())
}

async fn no_client_sees_the_answer_of_another() -> Outcome {
    crowd(|mut c, number| async move {
        let mut pids = Vec::new();
        for turn in 0..ROUNDS {
            let mut tx = c.inner.transaction().await?;
            let pid = server_of(&tx).await?;
            let text = marker(number, turn);
            assert_eq!(tx.query_one("select $1::text", &[&text]).await?.get::<_, &str>(0), text);
            tx.batch_execute(&format!("set local suite.mine = '{number}'")).await?;
            if turn % 4 == 0 {
                let savepoint = tx.transaction().await?;
                raises("22012", savepoint.query("select 1/0", &[]).await);
                savepoint.rollback().await?;
            }
            assert_eq!(text_of(&tx, "select current_setting('suite.mine')").await?, number.to_string());
            assert_eq!(server_of(&tx).await?, pid);
            tx.commit().await?;
            pids.push(pid);
        }
        Ok(pids)
    })
    .await
}

async fn settings_of_poolers_own_can_be_prepared() -> Outcome {
    let mut c = connect().await?;
    let tx = c.inner.transaction().await?;
    for setting in ["eventual", "strict"] {
        tx.execute(&format!("set pooler.read_consistency = '{setting}'"), &[]).await?;
        let show = tx.prepare("show pooler.read_consistency").await?;
        for _ in 0..2 {
            assert_eq!(tx.query_one(&show, &[]).await?.get::<_, &str>(0), setting);
        }
    }
    tx.execute("reset pooler.read_consistency", &[]).await?;
    assert_eq!(text_of(&tx, "select 'other'").await?, "other");
    Ok(tx.commit().await?)
}

async fn result_type_changed_by_ddl() -> Outcome {
    let (c, direct) = (connect().await?, direct().await?);
    direct.batch_execute("drop table if exists tokio_ddl; create table tokio_ddl (a int)").await?;
    direct.batch_execute("insert into tokio_ddl values (1)").await?;
    c.batch_execute(STRICT).await?;
    let statement = c.prepare("select * from tokio_ddl").await?;
    c.query(&statement, &[]).await?;
    direct.batch_execute("alter table tokio_ddl add column b text default 'new'").await?;
    match c.query_one(&statement, &[]).await {
        Ok(row) => note("result_type_changed", format!("{} columns", row.len())),
        Err(error) => {
            note("result_type_changed", error.as_db_error().map_or("no answer", |error| error.message()))
        }
    }
    assert_eq!(text_of(&c.inner, "select b from tokio_ddl").await?, "new");
    Ok(())
}

async fn lost_server_is_one_error_and_then_work_goes_on() -> Outcome {
    let (mut c, direct) = (connect().await?, direct().await?);
    let tx = c.inner.transaction().await?;
    let pid = server_of(&tx).await?;
    direct.query("select pg_terminate_backend($1)", &[&pid]).await?;
    server_exited(pid).await?;
    let error = tx.query("select 1", &[]).await.expect_err("went on without its server");
    let code = error.code().map(|code| code.code());
    assert!(
        error.is_closed() || code.is_some_and(|code| code.starts_with("57") || code.starts_with("08")),
        "{error}"
    );
    drop(tx);
    assert_eq!(connect().await?.query_one("select 1", &[]).await?.get::<_, i32>(0), 1);
    Ok(())
}

pooler_driver_tests::run! {
    wrong_password_is_refused,
    values_of_many_types_round_trip,
    user_defined_types_are_introspected,
    values_of_ten_megabytes_round_trip,
    named_statements_work_across_servers,
    prepared_statement_follows_its_client_to_another_server,
    pipelined_queries_answer_in_order,
    simple_queries_hold_many_statements,
    transactions_commit_roll_back_and_nest,
    errors_keep_their_sqlstate_and_the_connection,
    portals_read_in_portions,
    copy_in_and_out,
    cancel_stops_the_query_and_spares_the_connection,
    abandoned_query_does_not_answer_the_next,
    notifications_and_notices_reach_their_client,
    parameters_follow_the_client,
    deadpool_shares_servers_and_cleans_up,
    no_client_sees_the_answer_of_another,
    settings_of_poolers_own_can_be_prepared,
    result_type_changed_by_ddl,
    lost_server_is_one_error_and_then_work_goes_on,
}
