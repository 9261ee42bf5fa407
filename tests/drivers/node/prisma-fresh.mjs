// Prisma 7 as in an API with two servers: what a POST at one has created, a GET at the other finds right after the answer.

import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { PrismaPg } from '@prisma/adapter-pg'
import { URL, check, main, range } from './checks.mjs'
import { PrismaClient } from './prisma/generated/client.ts'

// Without a replica nothing can be late: a few show that the checks are right.
const TURNS = process.env.REPLICA_URL ? 100 : 10
const AT_ONCE = 4
// Longer than the replica is behind (run.sh): what was written is read there from then on.
const CAUGHT_UP = 100

const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: URL }) })

/** What the second server answers. */
const views = {
  user: (id) => prisma.user.findUnique({ where: { id }, include: { posts: { orderBy: { id: 'asc' } } } }),
  posts: (authorId) => prisma.post.findMany({ where: { authorId }, orderBy: { id: 'asc' } }),
  page: (prefix) => Promise.all([prisma.user.count({ where: { email: { startsWith: prefix } } }),
    prisma.user.findMany({ where: { email: { startsWith: prefix } }, orderBy: { id: 'desc' }, take: 5 })]),
  report: (id) => prisma.$transaction([prisma.user.findUnique({ where: { id } }), prisma.post.count({ where: { authorId: id } })]),
  plans: () => prisma.plan.findMany({ orderBy: { id: 'asc' } }),
}

if (process.argv[2] === 'serve') {
  process.on('message', async ({ number, view, argument }) => {
    try {
      process.send({ number, result: await views[view](argument) })
    } catch (error) {
      process.send({ number, error: String(error) })
    }
  })
  process.on('disconnect', () => process.exit(0))
  process.send('ready')
  await once(process, 'exit')
}

const server = fork(process.argv[1], ['serve'])
await once(server, 'message')
const waiting = new Map()
server.on('message', ({ number, result, error }) => {
  const { resolve, reject } = waiting.get(number)
  waiting.delete(number)
  error ? reject(new Error(error)) : resolve(result)
})
let asked = 0
const there = (view, argument) => new Promise((resolve, reject) => {
  waiting.set(++asked, { resolve, reject })
  server.send({ number: asked, view, argument })
})

/** So many turns of each of a few users of the API; now and then the replica has time to catch up first. */
const turns = (turn) => Promise.all(range(AT_ONCE).map(async (user) => {
  for (const n of range(TURNS)) {
    if (n % 10 === 9) await delay(CAUGHT_UP)
    await turn(user, n)
  }
}))

const plans = async () => assert.equal((await there('plans')).length, 10)

check('what_was_created_is_found_at_the_other_server', () => turns(async (user, n) => {
  const { id } = await prisma.user.create({ data: { email: `created ${user} ${n}`, posts: { create: range(3).map((p) => ({ title: `post ${p}` })) } } })
  const found = await there('user', id)
  assert.equal(found?.email, `created ${user} ${n}`)
  assert.deepEqual(found.posts.map(({ title }) => title), ['post 0', 'post 1', 'post 2'])
  await plans()
}))

check('what_was_changed_is_new_at_the_other_server', async () => {
  const users = await Promise.all(range(AT_ONCE).map((user) => prisma.user.create({ data: { email: `changed ${user}` } })))
  await turns(async (user, n) => {
    const { id } = users[user]
    await prisma.user.update({ where: { id }, data: { name: `name ${n}`, posts: { create: { title: `post ${n}` } } } })
    assert.equal((await there('user', id)).name, `name ${n}`)
    assert.equal((await there('posts', id)).length, n + 1)
    await plans()
  })
})

check('what_a_transaction_has_written_is_read_as_a_whole', async () => {
  const users = await Promise.all(range(AT_ONCE).map((user) => prisma.user.create({ data: { email: `whole ${user}` } })))
  await turns(async (user, n) => {
    const { id } = users[user]
    await prisma.$transaction(async (tx) => {
      await tx.post.create({ data: { title: 'one', authorId: id } })
      await tx.user.update({ where: { id }, data: { balance: { increment: 1 } } })
    }, { maxWait: 30_000, timeout: 30_000 })
    const [found, count] = await there('report', id)
    assert.equal(Number(found.balance), n + 1)
    assert.equal(count, n + 1)
    await plans()
  })
})

check('pages_are_complete_and_deleted_rows_are_gone', async () => {
  await turns(async (user, n) => {
    const { id } = await prisma.user.create({ data: { email: `page ${user} ${n}` } })
    const [, newest] = await there('page', `page ${user} `)
    assert.equal(newest[0]?.id, id)
    if (n % 2) {
      await prisma.user.delete({ where: { id } })
      assert.equal(await there('user', id), null)
    }
    assert.equal((await there('page', `page ${user} `))[0], Math.floor(n / 2) + 1)
    await plans()
  })
})

for (const text of ['drop table if exists prisma_post, prisma_user, prisma_plan',
  `create table prisma_user (id serial primary key, email text not null unique, name text, tags text[], profile jsonb,
    balance numeric not null default 0, created timestamptz not null default now())`,
  `create table prisma_post (id serial primary key, title text not null,
    author_id int not null references prisma_user on delete cascade)`,
  'create table prisma_plan (id int primary key, name text not null)',
  "insert into prisma_plan select n, 'plan ' || n from generate_series(1, 10) n"]) await prisma.$executeRawUnsafe(text)
await delay(CAUGHT_UP)
await main()
