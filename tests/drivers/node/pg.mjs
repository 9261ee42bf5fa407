// node-postgres (pg) with its defaults, pg-cursor and pg-copy-streams.

import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import pg from 'pg'
import Cursor from 'pg-cursor'
import { from as copyFrom, to as copyTo } from 'pg-copy-streams'
import { cancelIsOver, CLIENTS, DIRECT, NODES, POOL_SIZE, ROUNDS, STRICT, URL, check, main, marker, note, raises,
  range, serverExited, serversWereShared, until } from './checks.mjs'

async function connect(options = {}) {
  const client = new pg.Client({ connectionString: URL, ...options })
  client.on('error', () => {}) // a lost connection also fails the query, which the checks look at
  await client.connect()
  return client
}

async function connected(use, options) {
  const client = await connect(options)
  try {
    return await use(client)
  } finally {
    await client.end()
  }
}

const direct = (use) => connected(use, { connectionString: DIRECT })
const row = async (client, text, values) => (await client.query(text, values)).rows[0]
const serverOf = async (client) => (await row(client, 'select pg_backend_pid() pid')).pid

/** Holds that server in a transaction of another client: everybody else gets a different one. */
async function serverTaken(pid, use) {
  const others = []
  try {
    for (let held = 0; POOL_SIZE && held !== pid; ) {
      assert(others.length < POOL_SIZE, `server ${pid} has left the pool`)
      const other = await connect()
      others.push(other)
      await other.query('begin')
      held = await serverOf(other)
    }
    return await use()
  } finally {
    await Promise.all(others.map((other) => other.end()))
  }
}

/** Many clients at once, each with its own connection. */
async function crowd(work) {
  const clients = await Promise.all(range(CLIENTS).map(() => connect()))
  const pids = await Promise.all(clients.map((client, number) => work(client, number)))
  await Promise.all(clients.map((client) => client.end()))
  serversWereShared(pids.flat())
}

check('wrong_password_is_refused', async () => {
  const { username, host, pathname } = new globalThis.URL(URL)
  await raises('28P01', connect({ connectionString: `postgres://${username}:wrong@${host}${pathname}` }))
})

check('values_of_many_types_round_trip', () => connected(async (c) => {
  const text = 'Ünïcödé ☃ 𝄞 \'"\\'
  const sample = [text, [1, null, -3], { a: [1, { b: null }], ü: '☃' }, '12345678901234567890.123456789',
    new Date('2024-02-29T12:30:15.123Z'), Buffer.from(range(256)), null, true, ['a', null, 'quote " comma , brace }']]
  const got = await row(c, `select $1::text a, $2::int[] b, $3::jsonb c, $4::numeric d, $5::timestamptz e,
    $6::bytea f, $7::int g, $8::bool h, $9::text[] i`, sample)
  assert.deepEqual(Object.values(got), sample)
  const many = await c.query('select 1 as a; select 2 as b; ')
  assert.deepEqual(many.map((result) => result.rows[0]), [{ a: 1 }, { b: 2 }])
  assert.equal((await c.query('')).rows.length, 0)
  assert.deepEqual((await c.query({ text: 'select $1::int, $1::int + 1', values: [1], rowMode: 'array' })).rows, [[1, 2]])
  const { rows } = await c.query({ text: 'select $1::int4 n', values: [7], binary: true })
  assert.equal(rows[0].n, 7)
}))

check('values_of_ten_megabytes_round_trip', () => connected(async (c) => {
  const text = '☃x'.repeat(2_600_000)
  const raw = Buffer.alloc(10_000_000, 'raw\0')
  const got = await row(c, 'select $1::text t, $2::bytea b', [text, raw])
  assert(got.t === text && got.b.equals(raw))
}))

check('named_statements_work_across_servers', () => crowd(async (c, number) => {
  const pids = []
  for (const turn of range(ROUNDS)) {
    const shared = { name: 'shared', text: 'select pg_backend_pid() pid, $1::int * 2 double, $2::text mine' }
    const got = await row(c, { ...shared, values: [number, marker(number, turn)] })
    assert.deepEqual([got.double, got.mine], [number * 2, marker(number, turn)])
    pids.push(got.pid)
    // One name, another text in every client.
    const own = await row(c, { name: 'own', text: `select ${number} + $1::int n`, values: [turn] })
    assert.equal(own.n, number + turn)
    assert.equal((await row(c, 'select $1::int n', [turn])).n, turn)
  }
  return pids
}))

check('named_statement_follows_its_client_to_another_server', () => connected(async (c) => {
  const query = { name: 'follows', text: 'select pg_backend_pid() pid, $1::int + 1 n' }
  const first = await row(c, { ...query, values: [1] })
  await serverTaken(first.pid, async () => {
    const second = await row(c, { ...query, values: [2] })
    assert.equal(second.n, 3)
    assert(!POOL_SIZE || first.pid !== second.pid)
  })
}))

check('failed_statement_leaves_its_name_free', () => connected(async (c) => {
  await raises('42601', c.query({ name: 's', text: 'selec 1' }))
  await raises('42P01', c.query({ name: 's', text: 'select * from no_such_table' }))
  assert.equal((await row(c, { name: 's', text: 'select 5 n' })).n, 5)
  await raises('22P02', c.query({ name: 'int', text: 'select $1::int n', values: ['x'] }))
  assert.equal((await row(c, { name: 'int', text: 'select $1::int n', values: [6] })).n, 6)
}))

check('pipelined_queries_answer_in_order', () => connected(async (c) => {
  const answers = range(500).map((n) => row(c, n % 2 ? { name: `q${n % 10}`, text: `select $1::int n, ${n % 10}`, values: [n] }
    : `select ${n} n`))
  const failing = raises('22012', c.query('select 1 / $1::int', [0]))
  const after = row(c, 'select $1::int n', [7])
  assert.deepEqual((await Promise.all(answers)).map(({ n }) => n), range(500))
  await failing
  assert.equal((await after).n, 7)
}, { pipeline: true }))

check('transactions_commit_and_roll_back', () => connected((c) => direct(async (d) => {
  const ids = async () => (await d.query('select id from pg_tx order by id')).rows.map(({ id }) => id)
  await c.query('drop table if exists pg_tx; create table pg_tx (id int primary key)')
  await c.query('begin')
  await c.query('insert into pg_tx values ($1)', [1])
  await c.query('savepoint s')
  await raises('23505', c.query('insert into pg_tx values ($1)', [1]))
  await raises('25P02', c.query('select 1'))
  await c.query('rollback to s')
  await c.query('insert into pg_tx values (2)')
  assert.deepEqual(await ids(), [])
  await c.query('commit')
  assert.deepEqual(await ids(), [1, 2])
  await c.query('begin')
  await c.query('delete from pg_tx')
  await raises('22012', c.query('select 1/0'))
  assert.equal((await c.query('commit')).command, 'ROLLBACK')
  assert.deepEqual(await ids(), [1, 2])
})))

check('errors_keep_their_sqlstate_and_the_connection', () => connected(async (c) => {
  await c.query('drop table if exists pg_errors; create table pg_errors (id int primary key); insert into pg_errors values (1)')
  for (const _ of range(3)) {
    assert.equal((await raises('23505', c.query('insert into pg_errors values ($1)', [1]))).constraint, 'pg_errors_pkey')
    assert.equal((await raises('42601', c.query('select 1 frm x'))).position, '14')
    await raises('22012', c.query('select 1 / $1::int', [0]))
    await raises('22012', c.query('select 1; select 1/0; select 2'))
    assert.equal((await row(c, 'select 1 n')).n, 1)
  }
}))

check('cursors_read_in_portions', () => connected(async (c) => {
  await c.query('begin')
  const a = c.query(new Cursor('select n from generate_series(1, $1::int) n', [100]))
  let seen = 0
  for (let rows = await a.read(7); rows.length; rows = await a.read(7)) seen += rows.length
  assert.equal(seen, 100)
  await a.close()
  await c.query('commit')
  // Outside of a transaction the portal lives until Sync, which pg-cursor sends when it closes.
  const b = c.query(new Cursor('select n from generate_series(1, 1000) n'))
  assert.equal((await b.read(10)).at(-1).n, 10)
  assert.equal((await b.read(10)).at(-1).n, 20)
  await b.close()
  assert.equal((await row(c, 'select 1 n')).n, 1)
}))

check('copy_in_and_out', () => connected(async (c) => {
  await c.query('drop table if exists pg_copy; create table pg_copy (id int primary key, body text)')
  const lines = range(20000).map((n) => `${n}\tline ${n} ☃\n`)
  await pipeline(Readable.from(lines), c.query(copyFrom('copy pg_copy from stdin')))
  const chunks = await c.query(copyTo('copy (select * from pg_copy order by id) to stdout')).toArray()
  assert.equal(Buffer.concat(chunks).toString(), lines.join(''))
  await raises('22P02', pipeline(Readable.from(['x\ty\n', ...lines]), c.query(copyFrom('copy pg_copy from stdin'))))
  assert.equal((await row(c, 'select count(*)::int n from pg_copy')).n, 20000)
}))

check('cancel_stops_the_query_and_spares_the_connection', () => connected(async (c) => {
  for (const _ of range(POOL_SIZE ? 3 : 1)) {
    const query = new pg.Query("select pg_sleep(30), 'node-pg'")
    const stopped = new Promise((resolve, reject) => query.on('error', reject).on('end', resolve))
    c.query(query)
    const running = "select 1 from pg_stat_activity where wait_event = 'PgSleep' and query = $1"
    const refused = raises('57014', stopped)
    await until(async () => {
      const found = NODES.map((node) => connected((d) => d.query(running, [query.text]), { connectionString: node }))
      return (await Promise.all(found)).some(({ rowCount }) => rowCount)
    })
    const canceller = new pg.Client(URL)
    canceller.cancel(c, query)
    await refused
    await cancelIsOver(() => c.query('select 1'))
    assert.equal((await row(c, 'select 1 n')).n, 1)
  }
  await c.query('begin; set local statement_timeout = 50')
  await raises('57014', c.query('select pg_sleep(30)'))
  await c.query('rollback')
  assert.equal((await row(c, 'show statement_timeout')).statement_timeout, '0')
}))

check('notifications_reach_their_client', () => connected((listener) => connected(async (sender) => {
  const news = []
  listener.on('notification', ({ channel, payload }) => news.push([channel, payload]))
  await listener.query('listen pg_news')
  for (const n of range(50)) await sender.query("select pg_notify('pg_news', $1)", [String(n)])
  await until(() => news.length >= 50)
  assert.deepEqual(news, range(50).map((n) => ['pg_news', String(n)]))
  // Between its notifications the listener works as everybody else.
  assert.equal((await row(listener, 'select $1::int n', [1])).n, 1)
  await listener.query('unlisten *')
  await sender.query('notify pg_news')
  assert.equal((await row(listener, 'select $1::int n', [2])).n, 2)
  assert.equal(news.length, 50)
})))

check('startup_parameters_are_accepted', () => connected(async (c) => {
  assert.equal((await row(c, 'show application_name')).application_name, 'pg check')
  assert.equal((await row(c, 'select 1 n')).n, 1)
  note('statement_timeout', (await row(c, 'show statement_timeout')).statement_timeout)
}, { statement_timeout: 12345, application_name: 'pg check', options: '-c geqo=off' }))

check('pool_of_the_driver_shares_servers', async () => {
  const pool = new pg.Pool({ connectionString: URL, max: 20 })
  const answers = await Promise.all(range(500).map((n) => pool.query('select $1::int n', [n])))
  assert.deepEqual(answers.map(({ rows }) => rows[0].n), range(500))
  await pool.end()
})

check('no_client_sees_the_answer_of_another', () => crowd(async (c, number) => {
  const pids = []
  for (const turn of range(ROUNDS)) {
    await c.query('begin')
    const pid = await serverOf(c)
    assert.equal((await row(c, 'select $1::text mine', [marker(number, turn)])).mine, marker(number, turn))
    await c.query(`set local suite.mine = '${number}'`)
    if (turn % 4 === 0) {
      await c.query('savepoint s')
      await raises('22012', c.query('select 1/0'))
      await c.query('rollback to s')
    }
    assert.equal((await row(c, "select current_setting('suite.mine') mine")).mine, String(number))
    assert.equal(await serverOf(c), pid)
    await c.query('commit')
    pids.push(pid)
  }
  return pids
}))

check('result_type_changed_by_ddl', () => connected((c) => direct(async (d) => {
  await d.query('drop table if exists pg_ddl; create table pg_ddl (a int); insert into pg_ddl values (1)')
  await c.query(STRICT)
  const query = { name: 'ddl', text: 'select * from pg_ddl' }
  await c.query(query)
  await d.query("alter table pg_ddl add column b text default 'new'")
  note('result_type_changed', await c.query(query).then(({ rows }) => JSON.stringify(rows[0]), (error) => error.code))
  assert.deepEqual(await row(c, 'select * from pg_ddl'), { a: 1, b: 'new' })
})))

check('lost_server_is_one_error_and_then_work_goes_on', async () => {
  const pool = new pg.Pool({ connectionString: URL, max: 1 })
  pool.on('error', () => {})
  const c = await pool.connect()
  c.on('error', () => {})
  await c.query('begin')
  const pid = await serverOf(c)
  await direct((d) => d.query('select pg_terminate_backend($1)', [pid]))
  await serverExited(pid)
  const error = await c.query('select 1').then(() => assert.fail('went on without its server'), (error) => error)
  assert(!error.code || /^(57|08|ECONNRESET|EPIPE)/.test(error.code), String(error))
  c.release(error)
  assert.equal((await row(pool, 'select 1 n')).n, 1)
  await pool.end()
})

await main()
