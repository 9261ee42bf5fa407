"""psycopg 3 (libpq) with its defaults, its pools, and libpq's own prepare, pipeline and close calls."""

import asyncio
import datetime
import decimal
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool, ConnectionPool, NullConnectionPool

from checks import (CLIENTS, DIRECT, NODES, POOL_SIZE, ROUNDS, STRICT, URL, check, main, marker, note,
                    servers_were_shared, wait_for_exit)


def connect(url=URL, **options):
    options.setdefault("autocommit", True)
    return psycopg.connect(url, **options)


def value(connection, query, parameters=None, **options):
    return connection.execute(query, parameters, **options).fetchone()[0]


def server_of(connection):
    return value(connection, "select pg_backend_pid()")


@contextmanager
def server_taken(pid):
    """Holds that server in a transaction of another client: everybody else gets a different one."""
    with ExitStack() as stack:
        for _ in range(POOL_SIZE):
            other = stack.enter_context(connect())
            other.execute("begin")
            if server_of(other) == pid:
                break
        else:
            assert not POOL_SIZE, f"server {pid} has left the pool"
        yield


def raises(state, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except psycopg.Error as error:
        assert error.sqlstate == state, f"{error.sqlstate} instead of {state}: {error}"
        return error
    raise AssertionError(f"no error instead of {state}")


@check
def wrong_password_is_refused():
    try:
        connect(password="wrong")
    except psycopg.OperationalError as error:
        assert 'password authentication failed for user "app"' in str(error), error
    else:
        raise AssertionError("logged in with a wrong password")


@check
def simple_and_parameterised_queries():
    with connect() as c:
        assert value(c, "select 1") == 1
        assert c.execute("select 1 as a; select 2 as b").nextset() is True
        assert value(c, "select %s::int + %s", (40, 2)) == 42
        assert value(c, "select %s::text", ("Ünïcödé ☃ 𝄞 '\"\\",)) == "Ünïcödé ☃ 𝄞 '\"\\"
        assert value(c, "select %b::int8", (1 << 40,), binary=True) == 1 << 40
        assert c.execute("").statusmessage is None
        assert c.execute("select from generate_series(1, 3)").rowcount == 3


@check
def values_of_many_types_round_trip():
    when = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456, datetime.timezone.utc)
    samples = {
        "int4[]": [1, None, -3],
        "text[]": ["a", None, 'quote " comma , brace }', "ü"],
        "numeric": decimal.Decimal("12345678901234567890.123456789"),
        "timestamptz": when,
        "date": datetime.date(1999, 12, 31),
        "interval": datetime.timedelta(days=3, seconds=7),
        "uuid": uuid.UUID(int=7),
        "bytea": bytes(range(256)),
        "float8": 0.1 + 0.2,
        "bool": False,
        "text": None,
    }
    with connect() as c:
        for name, sample in samples.items():
            for binary in (False, True):
                got = value(c, f"select %s::{name}", (sample,), binary=binary)
                assert got == sample, f"{name}: {got!r}"
        document = {"a": [1, {"b": None}], "ü": "☃"}
        assert value(c, "select %s::jsonb", (Jsonb(document),)) == document
        assert value(c, "select array_length(%s::int[], 1)", (list(range(10000)),)) == 10000


@check
def values_of_ten_megabytes_round_trip():
    text, raw = "☃x" * 2_600_000, bytes(range(256)) * 40_000
    with connect() as c:
        assert value(c, "select %s::text", (text,)) == text
        assert value(c, "select %s::bytea", (raw,), binary=True) == raw
        assert value(c, "select length(%b::bytea)", (raw,)) == len(raw)
        assert len(value(c, "select repeat('y', 10000000)")) == 10_000_000


@check
def statements_prepare_themselves_across_servers():
    """After five executions psycopg prepares by name; the statement must be there on every server."""
    barrier = threading.Barrier(CLIENTS, timeout=30)

    def client(number):
        pids = []
        with connect() as c:
            barrier.wait()
            for turn in range(ROUNDS):
                got = c.execute("select pg_backend_pid(), %s::int * 2, %s::text", (number, marker(number, turn)))
                pid, double, text = got.fetchone()
                assert (double, text) == (number * 2, marker(number, turn))
                pids.append(pid)
                # Same name (_pg3_1) for another text in every client.
                assert value(c, f"select {number} + %s", (turn,)) == number + turn
        return pids

    with ThreadPoolExecutor(CLIENTS) as threads:
        servers_were_shared([pid for pids in threads.map(client, range(CLIENTS)) for pid in pids])


@check
def prepared_statement_follows_its_client_to_another_server():
    with connect() as c:
        query = "select pg_backend_pid(), %s::int + 1"
        first, _ = c.execute(query, (1,), prepare=True).fetchone()
        with server_taken(first):
            second, got = c.execute(query, (2,), prepare=True).fetchone()
            assert got == 3
            assert not POOL_SIZE or first != second


@check
def unnamed_statement_survives_a_change_of_server():
    with connect() as c:
        c.pgconn.prepare(b"", b"select pg_backend_pid(), $1::int + 1")
        first = int(c.pgconn.exec_prepared(b"", [b"1"]).get_value(0, 0))
        with server_taken(first):
            result = c.pgconn.exec_prepared(b"", [b"41"])
            assert result.get_value(0, 1) == b"42", result.error_message


@check
def statement_names_are_those_of_the_client():
    with connect() as a, connect() as b:
        for c, text in ((a, b"select 'a' || $1"), (b, b"select 'b' || $1")):
            assert c.pgconn.prepare(b"mine", text).status == psycopg.pq.ExecStatus.COMMAND_OK
        twice = a.pgconn.prepare(b"mine", b"select 3")
        assert twice.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"42P05", twice.error_message
        for c, letter in ((a, b"a"), (b, b"b"), (a, b"a")):
            assert c.pgconn.exec_prepared(b"mine", [b"1"]).get_value(0, 0) == letter + b"1"
        assert a.pgconn.describe_prepared(b"mine").nparams == 1
        assert a.pgconn.close_prepared(b"mine").status == psycopg.pq.ExecStatus.COMMAND_OK
        gone = a.pgconn.exec_prepared(b"mine", [b"1"])
        assert gone.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"26000", gone.error_message
        assert b.pgconn.exec_prepared(b"mine", [b"2"]).get_value(0, 0) == b"b2"
        assert a.pgconn.prepare(b"mine", b"select 'new'").status == psycopg.pq.ExecStatus.COMMAND_OK
        assert a.pgconn.exec_prepared(b"mine", []).get_value(0, 0) == b"new"


@check
def failed_prepare_leaves_the_name_free():
    with connect() as c:
        bad = c.pgconn.prepare(b"s", b"selec 1")
        assert bad.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"42601"
        good = c.pgconn.prepare(b"s", b"select 'good'")
        assert good.status == psycopg.pq.ExecStatus.COMMAND_OK, good.error_message
        assert c.pgconn.exec_prepared(b"s", []).get_value(0, 0) == b"good"


@check
def evicted_statements_are_closed_and_prepared_again():
    with connect() as c:
        c.prepared_max = 5
        for _ in range(3):
            for number in range(20):
                assert value(c, f"select {number} + %s", (1,), prepare=True) == number + 1


@check
def deallocate_and_discard_forget_the_statements():
    with connect() as c:
        for command in ("deallocate gone", "deallocate all", "discard all"):
            for name in (b"gone", b"other"):
                c.pgconn.prepare(name, b"select 8")
            assert c.pgconn.exec_prepared(b"gone", []).get_value(0, 0) == b"8"
            c.execute(command)
            result = c.pgconn.exec_prepared(b"gone", [])
            assert result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"26000", command
            result = c.pgconn.exec_prepared(b"other", [])
            assert (result.status == psycopg.pq.ExecStatus.TUPLES_OK) == (command == "deallocate gone")
            assert c.pgconn.prepare(b"gone", b"select 9").status == psycopg.pq.ExecStatus.COMMAND_OK
            assert c.pgconn.exec_prepared(b"gone", []).get_value(0, 0) == b"9"
            c.execute("deallocate all")
        for _ in range(7):
            assert value(c, "select %s::int", (7,)) == 7


@check
def transactions_commit_roll_back_and_nest():
    with connect() as c, connect(DIRECT) as direct:
        c.execute("drop table if exists psycopg_tx")
        c.execute("create table psycopg_tx (id int primary key)")
        ids = lambda: [row[0] for row in direct.execute("select id from psycopg_tx order by id")]
        with c.transaction():
            c.execute("insert into psycopg_tx values (1)")
            try:
                with c.transaction():
                    c.execute("insert into psycopg_tx values (2)")
                    raises("23505", c.execute, "insert into psycopg_tx values (1)")
                    raise KeyError
            except KeyError:
                pass
            with c.transaction("named"):
                c.execute("insert into psycopg_tx values (3)")
            assert ids() == []
        assert ids() == [1, 3]
        with c.transaction(force_rollback=True):
            c.execute("insert into psycopg_tx values (4)")
        assert ids() == [1, 3]
        # The other default of psycopg: a transaction begins with the first statement.
        with connect(autocommit=False) as implicit:
            implicit.execute("insert into psycopg_tx values (5)")
            pid = server_of(implicit)
            assert pid == server_of(implicit)
            implicit.rollback()
            implicit.execute("insert into psycopg_tx values (6)")
            implicit.commit()
        assert ids() == [1, 3, 6]
        c.execute("begin; insert into psycopg_tx values (7); commit; insert into psycopg_tx values (8)")
        assert ids() == [1, 3, 6, 7, 8]


@check
def isolation_levels_apply_to_their_transaction_only():
    with connect(autocommit=False) as c:
        c.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        assert value(c, "show transaction_isolation") == "serializable"
        c.commit()
        c.isolation_level, c.read_only = None, True
        raises("25006", c.execute, "create table psycopg_never (a int)")
        c.rollback()
        c.read_only = None
        assert value(c, "show transaction_isolation") == "read committed"


@check
def errors_keep_their_sqlstate_and_the_connection():
    with connect() as c:
        c.execute("drop table if exists psycopg_errors")
        c.execute("create table psycopg_errors (id int primary key)")
        c.execute("insert into psycopg_errors values (1)")
        for _ in range(3):
            error = raises("23505", c.execute, "insert into psycopg_errors values (%s)", (1,))
            assert error.diag.constraint_name == "psycopg_errors_pkey"
            error = raises("42601", c.execute, "select 1 frm x")
            assert error.diag.statement_position == "14", error.diag.statement_position
            raises("22012", c.execute, "select 1 / %s::int", (0,))
            raises("42P01", c.execute, "select * from no_such_table")
            with c.transaction(force_rollback=True):
                raises("22012", c.execute, "select 1/0")
                raises("25P02", c.execute, "select 1")
            assert value(c, "select 1") == 1


@check
def pipeline_mode_returns_each_answer_in_order():
    with connect() as c:
        with c.pipeline():
            cursors = [c.execute("select %s::int, %s::text", (n, marker(3, n))) for n in range(500)]
            assert [cursor.fetchone() for cursor in cursors] == [(n, marker(3, n)) for n in range(500)]
        c.execute("drop table if exists psycopg_many")
        c.execute("create table psycopg_many (id int, body text)")
        with c.cursor() as cursor:
            cursor.executemany("insert into psycopg_many values (%s, %s)", [(n, marker(5, n)) for n in range(2000)])
            assert cursor.rowcount == 2000
            cursor.executemany("insert into psycopg_many values (%s, %s) returning id, body",
                               [(n, "r") for n in range(100)], returning=True)
            got = [cursor.fetchone()[0]]
            while cursor.nextset():
                got.append(cursor.fetchone()[0])
            assert got == list(range(100))
        assert value(c, "select count(*) from psycopg_many") == 2100


@check
def large_pipeline_flows_both_ways_without_deadlock():
    """20 MB out while 20 MB come in: whoever stops reading one side blocks for ever."""
    body = "z" * 100_000
    with connect() as c, c.pipeline():
        cursors = [c.execute("select %s::text", (body,)) for _ in range(200)]
        assert all(cursor.fetchone()[0] == body for cursor in cursors)


@check
def server_side_cursors_read_in_portions():
    with connect(autocommit=False) as c:
        with c.cursor("portions") as cursor:
            cursor.itersize = 7
            cursor.execute("select n from generate_series(1, %s) n", (100,))
            assert [row[0] for row in cursor] == list(range(1, 101))
        with c.cursor("back", scrollable=True) as cursor:
            cursor.execute("select n from generate_series(1, 10) n")
            cursor.scroll(5)
            assert cursor.fetchone()[0] == 6
            cursor.scroll(0, mode="absolute")
            assert cursor.fetchmany(2) == [(1,), (2,)]
        c.commit()
        with c.cursor() as cursor:
            assert sum(row[0] for row in cursor.stream("select n from generate_series(1, 1000) n")) == 500500


@check
def copy_in_and_out_and_its_failures():
    rows = [(n, None if n % 7 == 0 else f"tab\t new\nline {n} ☃") for n in range(20000)]
    with connect() as c:
        c.execute("drop table if exists psycopg_copy")
        c.execute("create table psycopg_copy (id int primary key, body text)")
        with c.cursor() as cursor:
            for format in ("text", "binary"):
                with cursor.copy(f"copy psycopg_copy from stdin (format {format})") as copy:
                    if format == "binary":
                        copy.set_types(["int4", "text"])
                    for row in rows:
                        copy.write_row(row)
                assert cursor.rowcount == len(rows)
                with cursor.copy(f"copy (select * from psycopg_copy order by id) to stdout (format {format})") as copy:
                    copy.set_types(["int4", "text"])
                    assert list(copy.rows()) == rows
                c.execute("truncate psycopg_copy")

            def broken(at):
                with cursor.copy("copy psycopg_copy from stdin") as copy:
                    for n in range(20000):
                        copy.write_row(("not a number" if n == at else n, "x"))

            raises("22P02", broken, 10)
            raises("22P02", broken, 19999)

            def given_up():
                with cursor.copy("copy psycopg_copy from stdin") as copy:
                    copy.write_row((1, "x"))
                    raise KeyError

            def stopped_early():
                with cursor.copy("copy (select repeat('q', 1000) from generate_series(1, 20000)) to stdout") as copy:
                    next(iter(copy))
                    raise KeyError

            for abandon in (given_up, stopped_early):
                try:
                    abandon()
                except KeyError:
                    pass
                assert value(c, "select 'clean'") == "clean"
            raises("57014", cancelled_copy, cursor)
        assert value(c, "select count(*) from psycopg_copy") == 0


def cancelled_copy(cursor):
    with cursor.copy("copy psycopg_copy from stdin") as copy:
        copy.write_row((1, "x"))
        cursor.connection.cancel_safe()
        for n in range(2, 20000):  # libpq looks for errors only at the end
            copy.write_row((n, "x" * 1000))


@check
def cancel_stops_the_query_and_spares_the_connection():
    with connect() as c, connect() as bystander:
        for _ in range(3):
            with started(c, "psycopg"):
                raises("57014", value, c, "select pg_sleep(30), 'psycopg'")
            assert value(c, "select 1") == 1
            assert value(bystander, "select pg_sleep(0.01) is not null") is True
        # An idle client's cancel stops nobody.
        bystander.cancel_safe()
        assert value(c, "select pg_sleep(0.05) is not null") is True
        with c.transaction():
            c.execute("set local statement_timeout = 50")
            raises("57014", c.execute, "select pg_sleep(30)")
            c.execute("rollback")
            c.execute("begin")
        assert value(c, "show statement_timeout") == "0"


@contextmanager
def started(connection, word):
    """Cancels what the connection runs once PostgreSQL shows it as running."""

    def cancel():
        with ExitStack() as stack:
            nodes = [stack.enter_context(connect(url)) for url in NODES]
            running = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and query like %s and pid <> pg_backend_pid()"
            while not any(value(node, running, (f"select pg_sleep(30), '{word}'%",)) for node in nodes):
                pass
        connection.cancel_safe()

    thread = threading.Thread(target=cancel)
    thread.start()
    yield
    thread.join()


@check
def tracked_parameters_follow_the_client():
    with connect(application_name="psycopg check") as c, connect() as other:
        c.execute("set timezone to 'Asia/Tokyo'")
        c.execute("set datestyle to 'german'")
        c.execute("set intervalstyle to 'iso_8601'")
        first = server_of(c)
        assert c.info.timezone.key == "Asia/Tokyo"
        with server_taken(first):
            pid, *settings = c.execute(
                "select pg_backend_pid(), current_setting('timezone'), current_setting('datestyle'),"
                " current_setting('intervalstyle'), current_setting('application_name')").fetchone()
            assert settings == ["Asia/Tokyo", "German, DMY", "iso_8601", "psycopg check"], settings
            assert not POOL_SIZE or pid != first
        for _ in range(2 * POOL_SIZE or 1):
            assert value(other, "show timezone") != "Asia/Tokyo"
            assert value(other, "show datestyle") == "ISO, MDY"
        with c.transaction(force_rollback=True):
            c.execute("set timezone to 'America/Lima'")
        assert value(c, "show timezone") == "Asia/Tokyo"
        c.execute("reset timezone")
        assert value(c, "show timezone") == value(other, "show timezone")


@check
def client_encoding_is_the_clients_own():
    with connect(client_encoding="latin1") as latin, connect() as utf:
        for _ in range(POOL_SIZE or 1):
            assert latin.info.encoding == "iso8859-1"
            assert latin.execute("select 'é'").pgresult.get_value(0, 0) == b"\xe9"
            assert utf.execute("select 'é'").pgresult.get_value(0, 0) == "é".encode()


@check
def startup_options_are_accepted():
    with connect(options="-c statement_timeout=12345 -c search_path=pg_catalog -c extra_float_digits=1") as c:
        assert value(c, "select 1") == 1
        names = ("statement_timeout", "search_path", "extra_float_digits")
        note("startup_options", [value(c, sql.SQL("show {}").format(sql.Identifier(name))) for name in names])


@check
def notices_reach_their_client():
    def client(number):
        seen = []
        with connect() as c:
            c.add_notice_handler(lambda diagnostic: seen.append(diagnostic.message_primary))
            for turn in range(ROUNDS):
                c.execute(f"do $$ begin raise notice 'client {number} turn {turn}'; end $$")
        assert seen == [f"client {number} turn {turn}" for turn in range(ROUNDS)]

    with ThreadPoolExecutor(10) as threads:
        list(threads.map(client, range(10)))


@check
def notifications_reach_their_client():
    with connect() as listener, connect() as sender:
        listener.execute("listen psycopg_news")
        for n in range(50):
            sender.execute("select pg_notify('psycopg_news', %s)", (str(n),))
        got = [(news.channel, news.payload) for news in listener.notifies(timeout=20, stop_after=50)]
        assert got == [("psycopg_news", str(n)) for n in range(50)], got
        # Between its notifications the listener works as everybody else.
        assert value(listener, "select 1") == 1
        listener.execute("unlisten *")
        sender.execute("notify psycopg_news")
        assert value(listener, "select 2") == 2
        assert list(listener.notifies(timeout=0)) == []


@check
def pools_of_the_driver_share_servers():
    def work(pool, number):
        with pool.connection() as c:
            pid, got = c.execute("select pg_backend_pid(), %s::int", (number,)).fetchone()
            assert got == number
            if number % 10 == 0:
                raises("22012", c.execute, "select 1/0")  # the pool rolls back
            else:
                assert server_of(c) == pid
        return pid

    tested = {"check": ConnectionPool.check_connection}
    for kind, options in ((ConnectionPool, {}), (ConnectionPool, tested), (NullConnectionPool, {"min_size": 0})):
        with kind(URL, **{"min_size": 4, "max_size": 20, **options}) as pool, ThreadPoolExecutor(30) as threads:
            servers_were_shared(threads.map(lambda number: work(pool, number), range(200)))


@check
async def asynchronous_pool_shares_servers():
    async with AsyncConnectionPool(URL, min_size=4, max_size=20) as pool:
        async def work(number):
            async with pool.connection() as c, c.transaction():
                cursor = await c.execute("select pg_backend_pid(), %s::int", (number,))
                pid, got = await cursor.fetchone()
                assert got == number
                return pid

        servers_were_shared(await asyncio.gather(*(work(number) for number in range(300))))


@check
def no_client_sees_the_answer_of_another():
    barrier = threading.Barrier(CLIENTS, timeout=30)

    def client(number):
        pids = []
        with connect() as c:
            barrier.wait()
            for turn in range(ROUNDS):
                with c.transaction():
                    pid = server_of(c)
                    assert value(c, "select %s", (marker(number, turn),)) == marker(number, turn)
                    c.execute("select set_config('suite.mine', %s, true)", (str(number),))
                    assert value(c, "select current_setting('suite.mine')") == str(number)
                    if turn % 4 == 0:
                        c.execute("savepoint s")
                        raises("22012", c.execute, "select 1/0")
                        c.execute("rollback to s")
                    assert server_of(c) == pid
                pids.append(pid)
        return pids

    with ThreadPoolExecutor(CLIENTS) as threads:
        servers_were_shared([pid for pids in threads.map(client, range(CLIENTS)) for pid in pids])


@check
def settings_of_poolers_own_can_be_prepared():
    with connect(autocommit=False) as c:
        for setting in ("eventual", "strict"):
            c.execute(f"set pooler.read_consistency = '{setting}'", prepare=True)
            for binary in (False, True):
                shown = c.execute("show pooler.read_consistency", prepare=True, binary=binary).fetchone()
                assert shown == (setting,), shown
        c.execute("reset pooler.read_consistency", prepare=True)
        assert c.execute("select %s::int", (1,), prepare=True).fetchone() == (1,)


@check
def result_type_changed_by_ddl():
    with connect() as c, connect(DIRECT) as direct:
        direct.execute("drop table if exists psycopg_ddl")
        direct.execute("create table psycopg_ddl (a int)")
        direct.execute("insert into psycopg_ddl values (1)")
        c.execute(STRICT)
        run = lambda: c.execute("select * from psycopg_ddl", prepare=True).fetchone()
        run()
        direct.execute("alter table psycopg_ddl add column b text default 'new'")
        try:
            note("result_type_changed", run())
        except psycopg.Error as error:
            note("result_type_changed", error.sqlstate)
        # Whatever came, a statement that is new to the client sees the new column.
        assert c.execute("select * from psycopg_ddl where true").fetchone() == (1, "new")


@check
def lost_server_is_one_error_and_then_work_goes_on():
    with connect(autocommit=False) as c, connect(DIRECT) as direct:
        pid = server_of(c)
        direct.execute("select pg_terminate_backend(%s)", (pid,))
        wait_for_exit(pid)
        try:
            c.execute("select 1")
            raise AssertionError("the transaction went on without its server")
        except psycopg.OperationalError as error:
            assert error.sqlstate is None or error.sqlstate[:2] in ("57", "08"), error.sqlstate
        note("lost_server_closes_the_client", c.closed)
    with connect() as again:
        assert value(again, "select 1") == 1


@check
def idle_client_does_not_notice_a_lost_server():
    if not POOL_SIZE:
        return
    with connect() as c, connect(DIRECT) as direct:
        pid = server_of(c)
        value(c, "select %s::int", (1,), prepare=True)
        direct.execute("select pg_terminate_backend(%s)", (pid,))
        wait_for_exit(pid)
        assert value(c, "select %s::int", (2,), prepare=True) == 2


if __name__ == "__main__":
    main()
