// Prisma 7 with its driver adapter for pg: two clients (two pools) here, and two more in other processes.

import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { PrismaPg } from '@prisma/adapter-pg'
import pg from 'pg'
import { DIRECT, STRICT, URL, check, main, marker, note, range, serversWereShared } from './checks.mjs'
import { Prisma, PrismaClient } from './prisma/generated/client.ts'

const open = (options = {}) => new PrismaClient({ adapter: new PrismaPg({ connectionString: URL, ...options }) })

// The second kind of process: counts up in interactive transactions, see `processes_share_the_pool`.
if (process.argv[2] === 'count') {
  const prisma = open()
  const { id } = await prisma.user.findUniqueOrThrow({ where: { email: 'counter' } })
  await Promise.all(range(50).map(() => prisma.$transaction(async (tx) => {
    await tx.$queryRaw`select 1 from prisma_user where id = ${id} for update`
    const { balance } = await tx.user.findUniqueOrThrow({ where: { id } })
    await tx.user.update({ where: { id }, data: { balance: balance.plus(1) } })
  }, { maxWait: 30_000, timeout: 30_000 })))
  await prisma.$disconnect()
  process.exit(0)
}

const a = open()
const b = open()

async function fails(code, promise) {
  const error = await promise.then(() => assert.fail(`no error instead of ${code}`), (error) => error)
  assert.equal(error.code, code, String(error))
  return error
}

async function direct(text) {
  const client = new pg.Client(DIRECT)
  await client.connect()
  const { rows } = await client.query(text)
  await client.end()
  return rows
}

check('wrong_password_is_refused', async () => {
  const { username, host, pathname } = new globalThis.URL(URL)
  const prisma = open({ connectionString: `postgres://${username}:wrong@${host}${pathname}` })
  await fails('P1000', prisma.user.count())
  await prisma.$disconnect()
})

check('creates_finds_updates_and_deletes', async () => {
  await a.user.deleteMany()
  const created = await a.user.create({ data: { email: 'a@x', name: 'Ünï ☃', tags: ['p', 'q "r"'],
    profile: { deep: [1, null, { k: 'v' }] }, balance: '12345678901234567890.123456789' } })
  const found = await b.user.findUnique({ where: { email: 'a@x' } })
  assert.deepEqual({ ...found, balance: String(found.balance) }, { ...created, balance: '12345678901234567890.123456789' })
  assert.equal((await b.user.update({ where: { id: created.id }, data: { name: null } })).name, null)
  await a.user.createMany({ data: range(200).map((n) => ({ email: `many${n}`, balance: n })) })
  const page = await b.user.findMany({ where: { email: { startsWith: 'many' } }, orderBy: { id: 'asc' }, skip: 10, take: 5 })
  assert.deepEqual(page.map(({ email }) => email), range(5).map((n) => `many${n + 10}`))
  const sum = await a.user.aggregate({ where: { email: { startsWith: 'many' } }, _sum: { balance: true } })
  assert.equal(Number(sum._sum.balance), 19900)
  const upserted = await b.user.upsert({ where: { email: 'many0' }, create: { email: 'no' }, update: { name: 'there' } })
  assert.equal(upserted.name, 'there')
  assert.equal((await a.user.deleteMany({ where: { email: { startsWith: 'many' } } })).count, 200)
  assert.equal(await b.user.findFirst({ where: { email: 'many7' } }), null)
})

check('nested_writes_and_relations', async () => {
  const user = await a.user.create({ data: { email: 'nested@x', posts: { create: range(20).map((n) => ({ title: `post ${n}` })) } },
    include: { posts: true } })
  assert.equal(user.posts.length, 20)
  const changed = await b.user.update({ where: { id: user.id }, include: { posts: { orderBy: { id: 'asc' } } },
    data: { posts: { deleteMany: { title: { in: ['post 1', 'post 2'] } }, create: { title: 'late' },
      update: { where: { id: user.posts[0].id }, data: { title: 'first' } } } } })
  assert.deepEqual(changed.posts.map(({ title }) => title).filter((title) => !title.startsWith('post')), ['first', 'late'])
  assert.equal(changed.posts.length, 19)
  // A nested write that fails takes all of its statement with it.
  await a.user.create({ data: { email: 'other@x' } })
  await fails('P2002', a.user.update({ where: { id: user.id },
    data: { posts: { create: { title: 'lost' } }, email: 'other@x' } }))
  await fails('P2002', b.post.create({ data: { title: 'lost', author: { create: { email: 'other@x' } } } }))
  assert.equal(await b.post.count({ where: { title: 'lost' } }), 0)
})

check('transactions_commit_and_roll_back', async () => {
  await a.$transaction([a.user.create({ data: { email: 't1' } }), a.user.create({ data: { email: 't2' } })])
  await fails('P2002', a.$transaction([a.user.create({ data: { email: 't3' } }), a.user.create({ data: { email: 't1' } })]))
  const before = await a.$transaction(async (tx) => {
    await tx.user.create({ data: { email: 't4' } })
    return b.user.count({ where: { email: 't4' } })
  })
  assert.equal(before, 0)
  await assert.rejects(a.$transaction(async (tx) => {
    await tx.user.create({ data: { email: 't5' } })
    throw new Error('undo')
  }), /undo/)
  await fails('P2002', b.$transaction(async (tx) => {
    await tx.user.create({ data: { email: 't6' } })
    await tx.user.create({ data: { email: 't1' } })
  }, { isolationLevel: Prisma.TransactionIsolationLevel.Serializable }))
  const left = await b.user.findMany({ where: { email: { startsWith: 't' } }, orderBy: { email: 'asc' } })
  assert.deepEqual(left.map(({ email }) => email), ['t1', 't2', 't4'])
})

check('interactive_transaction_times_out_and_is_rolled_back', async () => {
  await fails('P2028', a.$transaction(async (tx) => {
    await tx.user.create({ data: { email: 'late' } })
    await b.$queryRaw`select 1 from pg_sleep(0.5)`
    await tx.user.count()
  }, { timeout: 200 }))
  assert.equal(await b.user.count({ where: { email: 'late' } }), 0)
})

check('raw_queries', async () => {
  const text = 'ünï \'"; drop table x; --'
  const [row] = await a.$queryRaw`select ${text}::text t, ${7}::int n, ${[1, 2]}::int[] a, ${null}::text z`
  assert.deepEqual(row, { t: text, n: 7, a: [1, 2], z: null })
  assert.equal(await b.$executeRaw`update prisma_user set name = ${'raw'} where email = ${'t1'}`, 1)
  const [{ n }] = await a.$queryRawUnsafe('select $1::int + $2::int n', 40, 2)
  assert.equal(n, 42)
  const error = await fails('P2010', a.$queryRaw`select 1 / ${0}::int`)
  assert.match(JSON.stringify(error.meta), /22012|division by zero/)
  await fails('P2010', b.$queryRawUnsafe('select 1 frm x'))
  assert.equal((await b.$queryRaw`select 1 n`)[0].n, 1)
})

check('errors_have_prisma_codes', async () => {
  for (const prisma of [a, b, a]) {
    await fails('P2002', prisma.user.create({ data: { email: 't1' } }))
    await fails('P2003', prisma.post.create({ data: { title: 'orphan', authorId: -1 } }))
    await fails('P2025', prisma.user.update({ where: { id: -1 }, data: { name: 'x' } }))
  }
})

check('large_values_round_trip', async () => {
  const name = '☃x'.repeat(1_300_000)
  const { id } = await a.user.create({ data: { email: 'large', name } })
  assert((await b.user.findUnique({ where: { id } })).name === name)
})

check('no_client_sees_the_answer_of_another', async () => {
  const clients = range(10).map(() => open({ max: 5 }))
  const pids = []
  await Promise.all(clients.flatMap((prisma, client) => range(40).map(async (turn) => {
    const mine = marker(client, turn)
    if (turn % 2) {
      await prisma.$transaction(async (tx) => {
        const [{ pid }] = await tx.$queryRaw`select pg_backend_pid() pid`
        assert.equal((await tx.$queryRaw`select ${mine} t, pg_backend_pid() pid`)[0].t, mine)
        assert.equal((await tx.$queryRaw`select pg_backend_pid() pid`)[0].pid, pid)
        pids.push(pid)
      }, { maxWait: 30_000, timeout: 30_000 })
    } else {
      const { email } = await prisma.user.create({ data: { email: mine } })
      assert.equal(email, mine)
      assert.equal((await prisma.user.findMany({ where: { email: mine } })).length, 1)
    }
  })))
  await Promise.all(clients.map((prisma) => prisma.$disconnect()))
  serversWereShared(pids)
})

check('processes_share_the_pool', async () => {
  await a.user.create({ data: { email: 'counter' } })
  const codes = await Promise.all([1, 2].map(() => once(fork(process.argv[1], ['count']), 'exit')))
  assert.deepEqual(codes.map(([code]) => code), [0, 0])
  assert.equal(Number((await b.user.findUnique({ where: { email: 'counter' } })).balance), 100)
})

check('result_type_changed_by_ddl', async () => {
  const query = () => a.$queryRaw`select * from prisma_ddl`.then(([row]) => JSON.stringify(row), (error) => error.code)
  await direct('drop table if exists prisma_ddl; create table prisma_ddl (a int); insert into prisma_ddl values (1)')
  await a.$executeRawUnsafe(STRICT)
  await query()
  await direct("alter table prisma_ddl add column b text default 'new'")
  note('result_type_changed', await query())
  assert.deepEqual(await a.$queryRaw`select * from prisma_ddl where true`, [{ a: 1, b: 'new' }])
  await a.$executeRawUnsafe('reset pooler.read_consistency')
})

check('lost_server_is_one_error_and_then_work_goes_on', async () => {
  await assert.rejects(a.$transaction(async (tx) => {
    const [{ pid }] = await tx.$queryRaw`select pg_backend_pid() pid`
    await direct(`select pg_terminate_backend(${pid})`)
    await tx.user.count()
  }))
  assert.equal((await a.$queryRaw`select 1 n`)[0].n, 1)
  assert(await a.user.count())
})

await direct(`
  drop table if exists prisma_post, prisma_user;
  create table prisma_user (id serial primary key, email text not null unique, name text, tags text[], profile jsonb,
    balance numeric not null default 0, created timestamptz not null default now());
  create table prisma_post (id serial primary key, title text not null,
    author_id int not null references prisma_user on delete cascade)`)
await main()
