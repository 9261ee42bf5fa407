// postgres.js with its defaults: a pool of 10, pipelined queries, statements prepared under random names.

import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import postgres from 'postgres'
import { cancelIsOver, CLIENTS, DIRECT, NODES, POOL_SIZE, ROUNDS, STRICT, URL, check, main, marker, note, raises,
  range, serversWereShared, until } from './checks.mjs'

const open = (options, url = URL) => postgres(url, { onnotice: () => {}, ...options })

async function connected(use, options, url) {
  const sql = open(options, url)
  try {
    return await use(sql)
  } finally {
    await sql.end({ timeout: 5 })
  }
}

const one = { max: 1 }
const direct = (use) => connected(use, one, DIRECT)
/** What the query returns at the primary and its replica. */
const atAllNodes = async (use) => (await Promise.all(NODES.map((node) => connected(use, one, node)))).flat()
const serverOf = async (sql) => (await sql`select pg_backend_pid() pid`)[0].pid

/** Holds that server in a transaction of another client: everybody else gets a different one. */
async function serverTaken(pid, use, tries = POOL_SIZE) {
  if (!POOL_SIZE) return use()
  assert(tries, `server ${pid} has left the pool`)
  return connected((sql) => sql.begin(async (tx) =>
    (await serverOf(tx)) === pid ? use() : serverTaken(pid, use, tries - 1)), one)
}

/** Many clients at once, each with its own connection. */
async function crowd(work) {
  const clients = range(CLIENTS).map(() => open(one))
  const pids = await Promise.all(clients.map((sql, number) => work(sql, number)))
  await Promise.all(clients.map((sql) => sql.end()))
  serversWereShared(pids.flat())
}

check('wrong_password_is_refused', () => connected((sql) => raises('28P01', sql`select 1`), { pass: 'wrong', password: 'wrong' },
  URL.replace(/:[^:@/]*@/, '@')))

check('values_of_many_types_round_trip', () => connected(async (sql) => {
  const text = 'Ünïcödé ☃ 𝄞 \'"\\'
  const document = { a: [1, { b: null }], ü: '☃' }
  const when = new Date('2024-02-29T12:30:15.123Z')
  await sql`select 1` // sql.array knows its types only after the first query
  const [got] = await sql`select ${text}::text t, ${[1, 2, -3]}::int[] i, ${sql.json(document)}::jsonb j,
    ${'12345678901234567890.123456789'}::numeric n, ${when}::timestamptz w, ${Buffer.from([0, 255])}::bytea b,
    ${null}::int z, ${true}::bool y, ${sql.array(['a', 'quote " comma , }'])}::text[] s`
  assert.deepEqual({ ...got, b: [...got.b] }, { t: text, i: [1, 2, -3], j: document, n: '12345678901234567890.123456789',
    w: when, b: [0, 255], z: null, y: true, s: ['a', 'quote " comma , }'] })
  const both = await sql`select 1 a; select 2 b`.simple()
  assert.deepEqual(both.map(([first]) => ({ ...first })), [{ a: 1 }, { b: 2 }])
  const description = await sql`select ${1}::int4 n, 'x'::text s`.describe()
  assert.deepEqual(description.columns.map(({ name, type }) => [name, type]), [['n', 23], ['s', 25]])
}))

check('values_of_ten_megabytes_round_trip', () => connected(async (sql) => {
  const text = '☃x'.repeat(2_600_000)
  const raw = Buffer.alloc(10_000_000, 'raw\0')
  const [got] = await sql`select ${text}::text t, ${raw}::bytea b`
  assert(got.t === text && got.b.equals(raw))
}))

check('prepared_statements_work_across_servers', () => crowd(async (sql, number) => {
  const pids = []
  for (const turn of range(ROUNDS)) {
    const [got] = await sql`select pg_backend_pid() pid, ${number}::int * 2 double, ${marker(number, turn)} mine`
    assert.deepEqual([got.double, got.mine], [number * 2, marker(number, turn)])
    pids.push(got.pid)
    const [own] = await sql.unsafe(`select ${number} + $1::int n`, [turn], { prepare: true })
    assert.equal(own.n, number + turn)
    assert.equal((await sql.unsafe('select $1::int n', [turn]))[0].n, turn)
  }
  return pids
}))

check('prepared_statement_follows_its_client_to_another_server', () => connected(async (sql) => {
  const ask = async (n) => (await sql`select pg_backend_pid() pid, ${n}::int + 1 n`)[0]
  const first = await ask(1)
  await serverTaken(first.pid, async () => {
    const second = await ask(2)
    assert.equal(second.n, 3)
    assert(!POOL_SIZE || first.pid !== second.pid)
  })
}, one))

check('pipelined_queries_answer_in_order', () => connected(async (sql) => {
  const got = await Promise.all(range(2000).map((n) => n % 3 ? sql`select ${n}::int n` : sql.unsafe(`select ${n} n`)))
  assert.deepEqual(got.map(([{ n }]) => n), range(2000))
  const body = 'z'.repeat(100_000)
  const wide = await Promise.all(range(100).map(() => sql`select ${body} b`))
  assert(wide.every(([{ b }]) => b === body))
}, one))

check('error_among_pipelined_queries_fails_only_itself', () => connected(async (sql) => {
  const got = await Promise.allSettled(range(300).map((n) => sql`select 1 / ${n % 10}::int q, ${n}::int n`))
  got.forEach(({ value, reason }, n) => n % 10 ? assert.equal(value[0].n, n) : assert.equal(reason.code, '22012'))
}, one))

check('transactions_commit_roll_back_and_nest', () => connected((sql) => direct(async (d) => {
  const ids = async () => (await d`select id from postgresjs_tx order by id`).map(({ id }) => id)
  await sql`drop table if exists postgresjs_tx; create table postgresjs_tx (id int primary key)`.simple()
  await sql.begin(async (tx) => {
    await tx`insert into postgresjs_tx values (1)`
    await tx.savepoint(async (sp) => {
      await sp`insert into postgresjs_tx values (2)`
      await raises('23505', sp`insert into postgresjs_tx values (1)`)
      await raises('25P02', sp`select 1`)
      throw new Error('undo')
    }).catch((error) => assert.equal(error.message, 'undo'))
    await tx.savepoint((sp) => sp`insert into postgresjs_tx values (3)`)
    assert.deepEqual(await ids(), [])
  })
  assert.deepEqual(await ids(), [1, 3])
  // All statements of the array are sent at once.
  await sql.begin((tx) => range(50).map((n) => tx`insert into postgresjs_tx values (${n + 100})`))
  await raises('22012', sql.begin((tx) => [tx`delete from postgresjs_tx`, tx`select 1/0`, tx`select 1`]))
  assert.equal((await ids()).length, 52)
  await raises('25006', sql.begin('read only', (tx) => tx`delete from postgresjs_tx`))
})))

check('errors_keep_their_sqlstate_and_the_connection', () => connected(async (sql) => {
  await sql`drop table if exists postgresjs_errors; create table postgresjs_errors (id int primary key);
    insert into postgresjs_errors values (1)`.simple()
  for (const _ of range(3)) {
    const error = await raises('23505', sql`insert into postgresjs_errors values (${1})`)
    assert.equal(error.constraint_name, 'postgresjs_errors_pkey')
    assert.equal((await raises('42601', sql`select 1 frm x`)).position, '14')
    await raises('22012', sql`select 1 / ${0}::int`)
    await raises('42P01', sql`select * from no_such_table`)
    assert.equal((await sql`select 1 n`)[0].n, 1)
  }
}, one))

check('cursors_read_in_portions', () => connected(async (sql) => {
  const seen = []
  for await (const rows of sql`select n from generate_series(1, ${100}::int) n`.cursor(7)) seen.push(rows.length)
  assert.deepEqual(seen, [...Array(14).fill(7), 2])
  let first = 0
  await sql`select n from generate_series(1, 1000) n`.cursor(10, (rows) => {
    first += rows.length
    return first < 30 ? undefined : sql.CLOSE
  })
  assert.equal(first, 30)
  let sum = 0
  await sql`select n from generate_series(1, 1000) n`.forEach(({ n }) => (sum += n))
  assert.equal(sum, 500500)
  assert.equal((await sql`select 1 n`)[0].n, 1)
}, one))

check('copy_in_and_out', () => connected(async (sql) => {
  await sql`drop table if exists postgresjs_copy; create table postgresjs_copy (id int primary key, body text)`.simple()
  const lines = range(20000).map((n) => `${n}\tline ${n} ☃\n`)
  await pipeline(Readable.from(lines), await sql`copy postgresjs_copy from stdin`.writable())
  // A larger result leaves the driver's socket paused, with PostgreSQL itself too.
  const out = await sql`copy (select * from postgresjs_copy where id < 400 order by id) to stdout`.readable()
  assert.equal(Buffer.concat(await out.toArray()).toString(), lines.slice(0, 400).join(''))
  assert.equal((await sql`select count(*)::int n from postgresjs_copy`)[0].n, 20000)
}, one))

check('cancel_stops_the_query_and_spares_the_connection', () => connected(async (sql) => {
  for (const _ of range(POOL_SIZE ? 3 : 1)) {
    const query = sql`select pg_sleep(30), 'postgresjs'`
    const refused = raises('57014', query)
    const running = () => atAllNodes((d) => d`select 1 from pg_stat_activity where wait_event = 'PgSleep' and pid <> pg_backend_pid()
      and query = ${"select pg_sleep(30), 'postgresjs'"}`)
    await until(async () => (await running()).length)
    query.cancel()
    await refused
    await cancelIsOver(() => sql`select 1`)
    assert.equal((await sql`select 1 n`)[0].n, 1)
  }
  await raises('57014', sql.begin((tx) => [tx`set local statement_timeout = 50`, tx`select pg_sleep(30)`]))
  assert.equal((await sql`show statement_timeout`)[0].statement_timeout, '0')
}, one))

check('notifications_reach_their_client', () => connected(async (sql) => {
  const news = []
  const { unlisten } = await sql.listen('postgresjs_news', (payload) => news.push(payload))
  for (const n of range(50)) await sql.notify('postgresjs_news', String(n))
  await until(() => news.length >= 50)
  assert.deepEqual(news, range(50).map(String))
  await unlisten()
  await sql.notify('postgresjs_news', 'late')
  assert.equal((await sql`select ${1}::int n`)[0].n, 1)
  assert.equal(news.length, 50)
}))

check('pool_of_the_driver_shares_servers', () => connected(async (sql) => {
  const pids = await Promise.all(range(500).map(async (n) => {
    const [got] = n % 2 ? await sql`select pg_backend_pid() pid, ${n}::int n`
      : await sql.begin((tx) => tx`select pg_backend_pid() pid, ${n}::int n`)
    assert.equal(got.n, n)
    return got.pid
  }))
  serversWereShared(pids)
}, { max: 20 }))

check('connection_parameters_are_accepted', () => connected(async (sql) => {
  const show = async (name) => Object.values((await sql.unsafe(`show ${name}`))[0])[0]
  assert.equal(await show('application_name'), 'postgresjs check')
  assert.equal(await show('timezone'), 'Asia/Tokyo')
  note('statement_timeout', await show('statement_timeout'))
}, { connection: { application_name: 'postgresjs check', timezone: 'Asia/Tokyo', statement_timeout: 12345 } }))

check('no_client_sees_the_answer_of_another', () => crowd(async (sql, number) => {
  const pids = []
  for (const turn of range(ROUNDS)) {
    await sql.begin(async (tx) => {
      const pid = await serverOf(tx)
      await tx.unsafe(`set local suite.mine = '${number}'`)
      const [[mine], [setting], again] = await Promise.all([tx`select ${marker(number, turn)} text`,
        tx`select current_setting('suite.mine') text`, serverOf(tx)])
      assert.deepEqual([mine.text, setting.text, again], [marker(number, turn), String(number), pid])
      pids.push(pid)
    })
    if (turn % 4 === 0) await raises('22012', sql`select 1 / ${0}::int`)
  }
  return pids
}))

check('result_type_changed_by_ddl', () => connected((sql) => direct(async (d) => {
  await d`drop table if exists postgresjs_ddl; create table postgresjs_ddl (a int); insert into postgresjs_ddl values (1)`.simple()
  await sql.unsafe(STRICT)
  const query = () => sql`select * from postgresjs_ddl`.then(([row]) => JSON.stringify(row), (error) => error.code)
  await query()
  await d`alter table postgresjs_ddl add column b text default 'new'`
  note('result_type_changed', await query())
  assert.deepEqual({ ...(await sql`select * from postgresjs_ddl where true`)[0] }, { a: 1, b: 'new' })
}), one))

check('lost_server_is_one_error_and_then_work_goes_on', () => connected(async (sql) => {
  const text = "select pg_sleep(30), 'postgresjs is lost'"
  let lost
  sql.unsafe(text).catch((error) => { lost = error }) // after sql.begin the driver itself would crash on its ROLLBACK
  // With a replica, what only reads is repeated elsewhere: it is ended wherever it runs.
  await until(async () => {
    await atAllNodes((d) => d`select pg_terminate_backend(pid) from pg_stat_activity
      where wait_event = 'PgSleep' and query = ${text} and pid <> pg_backend_pid()`)
    return lost
  })
  assert.match(lost.code, /^(57P01|CONNECTION_CLOSED)$/)
  // The driver may send one more query to the closing connection.
  await until(() => sql`select 1`.then(() => true, () => false))
}, one))

await main()
