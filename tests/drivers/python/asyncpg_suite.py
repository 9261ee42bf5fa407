"""asyncpg with its defaults: binary format, a cache of 100 named statements, Parse/Describe/Flush."""

import asyncio
import datetime
import decimal
import io
import json
import uuid
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg

from checks import (CLIENTS, DIRECT, NODES, POOL_SIZE, ROUNDS, STRICT, URL, check, main, marker, note,
                    servers_were_shared, wait_for_exit)


@asynccontextmanager
async def connected(url=URL, **options):
    connection = await asyncpg.connect(url, **options)
    try:
        yield connection
    finally:
        await connection.close()


async def server_of(connection):
    return await connection.fetchval("select pg_backend_pid()")


@asynccontextmanager
async def server_taken(pid):
    """Holds that server in a transaction of another client: everybody else gets a different one."""
    async with AsyncExitStack() as stack:
        for _ in range(POOL_SIZE):
            other = await stack.enter_async_context(connected())
            await stack.enter_async_context(other.transaction())
            if await server_of(other) == pid:
                break
        else:
            assert not POOL_SIZE, f"server {pid} has left the pool"
        yield


async def raises(state, awaitable):
    try:
        await awaitable
    except asyncpg.PostgresError as error:
        assert error.sqlstate == state, f"{error.sqlstate} instead of {state}: {error}"
        return error
    raise AssertionError(f"no error instead of {state}")


@check
async def wrong_password_is_refused():
    await raises("28P01", asyncpg.connect(URL, password="wrong"))


@check
async def values_of_many_types_round_trip():
    samples = {
        "int4[]": [1, None, -3],
        "text[]": ["a", None, 'quote " comma ,', "ü"],
        "numeric": decimal.Decimal("12345678901234567890.123456789"),
        "timestamptz": datetime.datetime(2024, 2, 29, 12, 30, 15, 123456, datetime.timezone.utc),
        "interval": datetime.timedelta(days=3, seconds=7),
        "uuid": uuid.UUID(int=7),
        "bytea": bytes(range(256)),
        "jsonb": '{"a": [1, {"b": null}], "ü": "☃"}',
        "bool": True,
        "text": None,
    }
    async with connected() as c:
        for name, sample in samples.items():
            got = await c.fetchval(f"select $1::{name}", sample)
            assert got == sample, f"{name}: {got!r}"
        assert await c.fetchval("select $1", "Ünïcödé ☃ 𝄞 '\"\\") == "Ünïcödé ☃ 𝄞 '\"\\"
        row = await c.fetchrow("select 1 as a, null::int as b, 'x'::text as c")
        assert dict(row) == {"a": 1, "b": None, "c": "x"}
        await c.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        assert await c.fetchval("select $1::jsonb", {"k": [1, 2]}) == {"k": [1, 2]}


@check
async def user_defined_types_are_introspected():
    async with connected() as c:
        await c.execute("""drop type if exists asyncpg_pair; drop type if exists asyncpg_mood;
                           create type asyncpg_mood as enum ('sad', 'happy');
                           create type asyncpg_pair as (mood asyncpg_mood, weights numeric[])""")
    async with connected() as c:
        row = await c.fetchval("select row('happy', '{1.5,2}')::asyncpg_pair")
        assert tuple(row) == ("happy", [decimal.Decimal("1.5"), decimal.Decimal(2)])
        assert await c.fetchval("select $1::asyncpg_mood[]", ["sad", "happy"]) == ["sad", "happy"]


@check
async def values_of_ten_megabytes_round_trip():
    text, raw = "☃x" * 2_600_000, bytes(range(256)) * 40_000
    async with connected() as c:
        assert await c.fetchval("select $1::text", text) == text
        assert await c.fetchval("select $1::bytea", raw) == raw


@check
async def cached_statements_work_across_servers():
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected()) for _ in range(CLIENTS)]

        async def client(number, c):
            pids = []
            for turn in range(ROUNDS):
                pid, double, text = await c.fetchrow(
                    "select pg_backend_pid(), $1::int * 2, $2::text", number, marker(number, turn))
                assert (double, text) == (number * 2, marker(number, turn))
                pids.append(pid)
                # asyncpg numbers its names the same way in every client, here for different texts.
                assert await c.fetchval(f"select {number} + $1::int", turn) == number + turn
            return pids

        results = await asyncio.gather(*(client(n, c) for n, c in enumerate(clients)))
        servers_were_shared([pid for pids in results for pid in pids])


@check
async def prepared_statement_follows_its_client_to_another_server():
    async with connected() as c:
        statement = await c.prepare("select pg_backend_pid() as pid, $1::int + 1 as next")
        assert [a.name for a in statement.get_attributes()] == ["pid", "next"]
        first, _ = await statement.fetchrow(1)
        async with server_taken(first):
            second, got = await statement.fetchrow(2)
            assert got == 3
            assert not POOL_SIZE or first != second


@check
async def more_statements_than_the_cache_holds():
    async with connected(statement_cache_size=5) as c:
        for _ in range(3):
            for number in range(30):
                assert await c.fetchval(f"select {number} + $1::int", 1) == number + 1
    async with connected(statement_cache_size=0) as c:
        for number in range(10):
            assert await c.fetchval("select $1::int", number) == number


@check
async def reset_and_pool_release_keep_the_connection_usable():
    async with asyncpg.create_pool(URL, min_size=3, max_size=10) as pool:
        async def work(number):
            async with pool.acquire() as c:
                async with c.transaction():
                    return await c.fetchval("select $1::int", number)

        assert await asyncio.gather(*(work(n) for n in range(200))) == list(range(200))
        async with pool.acquire() as c:
            await c.fetchval("select $1::int", 1)
            await c.execute("deallocate all")
            await c.reset()
            await c.reload_schema_state()
            assert await c.fetchval("select $1::int", 2) == 2


@check
async def transactions_commit_roll_back_and_nest():
    async with connected() as c, connected(DIRECT) as direct:
        await c.execute("drop table if exists asyncpg_tx; create table asyncpg_tx (id int primary key)")

        async def ids():
            return [r[0] for r in await direct.fetch("select id from asyncpg_tx order by id")]

        async with c.transaction(isolation="serializable"):
            await c.execute("insert into asyncpg_tx values ($1)", 1)
            try:
                async with c.transaction():
                    await c.execute("insert into asyncpg_tx values (2)")
                    await raises("23505", c.execute("insert into asyncpg_tx values ($1)", 1))
                    await raises("25P02", c.fetchval("select 1"))
                    raise KeyError
            except KeyError:
                pass
            async with c.transaction():
                await c.execute("insert into asyncpg_tx values (3)")
            assert await ids() == []
        assert await ids() == [1, 3]
        transaction = c.transaction()
        await transaction.start()
        await c.execute("insert into asyncpg_tx values (4)")
        await transaction.rollback()
        assert await ids() == [1, 3]
        async with c.transaction(readonly=True):
            await raises("25006", c.execute("insert into asyncpg_tx values (5)"))
        assert not c.is_in_transaction()


@check
async def errors_keep_their_sqlstate_and_the_connection():
    async with connected() as c:
        await c.execute("drop table if exists asyncpg_errors; create table asyncpg_errors (id int primary key)")
        await c.execute("insert into asyncpg_errors values (1)")
        for _ in range(3):
            error = await raises("23505", c.execute("insert into asyncpg_errors values ($1)", 1))
            assert error.constraint_name == "asyncpg_errors_pkey"
            assert (await raises("42601", c.fetch("select 1 frm x"))).position == "14"
            await raises("22012", c.fetch("select 1 / $1::int", 0))
            await raises("22012", c.execute("select 1; select 1/0; select 2"))
            await raises("42P01", c.fetch("select * from no_such_table"))
            assert await c.fetchval("select 1") == 1


@check
async def executemany_pipelines_and_is_atomic():
    async with connected() as c:
        await c.execute("drop table if exists asyncpg_many; create table asyncpg_many (id int primary key, body text)")
        await c.executemany("insert into asyncpg_many values ($1, $2)", [(n, marker(7, n)) for n in range(5000)])
        assert await c.fetchval("select count(*) from asyncpg_many") == 5000
        await raises("23505", c.executemany("insert into asyncpg_many values ($1, '')", [(9000,), (1,), (9001,)]))
        assert await c.fetchval("select count(*) from asyncpg_many") == 5000
        got = await c.fetchmany("select $1::int", [(n,) for n in range(1000)])
        assert [r[0] for r in got] == list(range(1000))


@check
async def cursors_read_in_portions():
    async with connected() as c:
        async with c.transaction():
            got = [r[0] async for r in c.cursor("select n from generate_series(1, $1::int) n", 1000, prefetch=7)]
            assert got == list(range(1, 1001))
            a = await c.cursor("select n from generate_series(1, 10) n")
            b = await c.cursor("select -n from generate_series(1, 10) n")
            assert [r[0] for r in await a.fetch(3)] == [1, 2, 3]
            assert (await b.fetchrow())[0] == -1
            assert await a.forward(4) == 4
            assert (await a.fetchrow())[0] == 8
            assert len(await a.fetch(100)) == 2


@check
async def copy_in_and_out():
    rows = [(n, None if n % 7 == 0 else f"tab\t line\n {n} ☃") for n in range(20000)]
    async with connected() as c:
        await c.execute("drop table if exists asyncpg_copy; create table asyncpg_copy (id int primary key, body text)")
        assert await c.copy_records_to_table("asyncpg_copy", records=rows) == "COPY 20000"
        out = io.BytesIO()
        await c.copy_from_query("select * from asyncpg_copy where id < $1 order by id", 20000, output=out, format="csv")
        await c.execute("truncate asyncpg_copy")
        out.seek(0)
        assert await c.copy_to_table("asyncpg_copy", source=out, format="csv") == "COPY 20000"
        assert [tuple(r) for r in await c.fetch("select * from asyncpg_copy order by id")] == rows
        await raises("23505", c.copy_records_to_table("asyncpg_copy", records=[(1, "again")]))
        await raises("22P02", c.copy_to_table("asyncpg_copy", source=io.BytesIO(b"x\ty\n" * 100000)))
        assert await c.fetchval("select count(*) from asyncpg_copy") == 20000


@check
async def timeouts_cancel_the_query_and_spare_the_connection():
    async with connected() as c, connected() as bystander:
        for _ in range(3):
            try:
                await c.fetchval("select pg_sleep(30)", timeout=0.1)
                raise AssertionError("no timeout")
            except asyncio.TimeoutError:
                pass
            assert await c.fetchval("select 1") == 1
            task = asyncio.create_task(c.fetchval("select pg_sleep(30), 'asyncpg'"))
            async with AsyncExitStack() as stack:
                nodes = [await stack.enter_async_context(connected(url)) for url in NODES]
                running = ("select count(*) from pg_stat_activity where wait_event = 'PgSleep' and query like"
                           " 'select pg_sleep(30), ''asyncpg''%' and pid <> pg_backend_pid()")
                while not any([await node.fetchval(running) for node in nodes]):
                    pass
            task.cancel()
            try:
                await task
                raise AssertionError("not cancelled")
            except asyncio.CancelledError:
                pass
            assert await c.fetchval("select 2") == 2
            assert await bystander.fetchval("select pg_sleep(0.01) is not null")
        async with c.transaction():
            await c.execute("set local statement_timeout = 50")
            savepoint = c.transaction()
            await savepoint.start()
            await raises("57014", c.execute("select pg_sleep(30)"))
            await savepoint.rollback()
        assert await c.fetchval("show statement_timeout") == "0"


@check
async def notifications_reach_their_client():
    async with connected() as listener, connected() as sender:
        news = asyncio.Queue()
        await listener.add_listener("asyncpg_news", lambda c, pid, channel, payload: news.put_nowait((channel, payload)))
        for n in range(50):
            await sender.execute("select pg_notify('asyncpg_news', $1)", str(n))
        for n in range(50):
            assert await news.get() == ("asyncpg_news", str(n))
        # Between its notifications the listener works as everybody else.
        assert await listener.fetchval("select $1::int", 1) == 1
        await listener.execute("unlisten *")
        await sender.execute("notify asyncpg_news")
        assert await listener.fetchval("select $1::int", 2) == 2
        assert news.empty()


@check
async def tracked_parameters_follow_the_client():
    async with connected(server_settings={"application_name": "asyncpg check", "timezone": "Asia/Tokyo"}) as c:
        first = await server_of(c)
        async with server_taken(first), connected() as other:
            got = await c.fetchrow("select current_setting('timezone'), current_setting('application_name')")
            assert tuple(got) == ("Asia/Tokyo", "asyncpg check"), got
            assert await other.fetchval("show timezone") != "Asia/Tokyo"
            await c.execute("set timezone to 'America/Lima'")
            assert c.get_settings().TimeZone == "America/Lima"
        assert await c.fetchval("show timezone") == "America/Lima"
        await c.execute("reset all")
        assert await c.fetchval("show timezone") == "Asia/Tokyo"
        assert await c.fetchval("show application_name") == "asyncpg check"


@check
async def no_client_sees_the_answer_of_another():
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected()) for _ in range(CLIENTS)]

        async def client(number, c):
            pids = []
            for turn in range(ROUNDS):
                async with c.transaction():
                    pid = await server_of(c)
                    assert await c.fetchval("select $1::text", marker(number, turn)) == marker(number, turn)
                    await c.execute(f"set local suite.mine = '{number}'")
                    if turn % 4 == 0:
                        try:
                            async with c.transaction():
                                await c.execute("select 1/0")
                        except asyncpg.DivisionByZeroError:
                            pass
                    assert await c.fetchval("select current_setting('suite.mine')") == str(number)
                    assert await server_of(c) == pid
                pids.append(pid)
            return pids

        results = await asyncio.gather(*(client(n, c) for n, c in enumerate(clients)))
        servers_were_shared([pid for pids in results for pid in pids])


@check
async def settings_of_poolers_own_can_be_prepared():
    async with connected() as c, c.transaction():
        for setting in ("eventual", "strict"):
            await (await c.prepare(f"set pooler.read_consistency = '{setting}'")).fetch()
            # Twice: the second time it is in the cache.
            for _ in range(2):
                assert await c.fetchval("show pooler.read_consistency") == setting
        await c.fetch("reset pooler.read_consistency")
        assert await c.fetchval("select $1::int", 1) == 1


@check
async def result_type_changed_by_ddl():
    async with connected() as c, connected(DIRECT) as direct:
        await direct.execute("drop table if exists asyncpg_ddl; create table asyncpg_ddl (a int);"
                             "insert into asyncpg_ddl values (1)")
        await c.execute(STRICT)
        await c.fetchrow("select * from asyncpg_ddl")
        await direct.execute("alter table asyncpg_ddl add column b text default 'new'")
        try:
            note("result_type_changed", tuple(await c.fetchrow("select * from asyncpg_ddl")))
        except asyncpg.PostgresError as error:
            note("result_type_changed", error.sqlstate)
        # asyncpg forgets its statements on 0A000 and is right the next time.
        assert tuple(await c.fetchrow("select * from asyncpg_ddl")) == (1, "new")


@check
async def lost_server_is_one_error_and_then_work_goes_on():
    async with asyncpg.create_pool(URL, min_size=1, max_size=1) as pool, connected(DIRECT) as direct:
        async with pool.acquire() as c:
            transaction = c.transaction()
            await transaction.start()
            pid = await server_of(c)
            await direct.execute("select pg_terminate_backend($1)", pid)
            wait_for_exit(pid)
            try:
                await c.fetchval("select 1")
                raise AssertionError("the transaction went on without its server")
            except asyncpg.PostgresError as error:
                assert error.sqlstate[:2] in ("57", "08"), error.sqlstate
            except (asyncpg.InterfaceError, asyncpg.InternalClientError, ConnectionError):
                pass  # how asyncpg takes a FATAL that came before its query
        async with pool.acquire() as c:
            assert await c.fetchval("select 1") == 1


if __name__ == "__main__":
    main()
