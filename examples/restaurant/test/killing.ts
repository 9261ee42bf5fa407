import assert from 'node:assert/strict'
import { differs, type Guests, type SentOrder } from '../load/guests.ts'
import type { System } from '../system/system.ts'
import { eventually } from './support.ts'

/** So many more orders are acknowledged after a failure before it counts as survived. */
const MORE = 100

interface Stored extends SentOrder {
  number: number
  totalCents: number
}

/** What is in the database, of the guests, as one statement sees it at the primary itself. */
const STORED = `
  SELECT o.id, o.customer, o.table_number AS table, o.number, o.total_cents AS "totalCents",
         json_agg(json_build_object('dish', l.dish_id, 'quantity', l.quantity)) AS lines
  FROM orders o LEFT JOIN order_line l ON l.order_id = o.id
  WHERE o.customer LIKE 'Load %' GROUP BY o.id`

const MISCOUNTED = `
  SELECT dish_id, sold, coalesce(ordered, 0) AS ordered FROM dish_sales
  LEFT JOIN (SELECT dish_id, sum(quantity)::int AS ordered FROM order_line GROUP BY dish_id) lines USING (dish_id)
  WHERE sold <> coalesce(ordered, 0)`

/** Every order that was acknowledged is there once, as it was ordered; nothing was carried out twice or in part. */
export async function nothingIsLostOrDoubled(system: System, guests: Guests): Promise<void> {
  const acknowledged = [...guests.acknowledged.values()]
  const { primary } = system.cluster
  const rows = await primary.ask<Stored>(STORED, [], 'restaurant')
  const stored = new Map(rows.map((row) => [row.id, row]))
  for (const order of acknowledged) {
    const found = stored.get(order.id)
    assert.ok(found, `order ${order.id} (no. ${order.number}) was acknowledged and is lost`)
    assert.equal(differs(order, found), '')
    assert.equal(found.number, order.number)
    assert.equal(found.totalCents, order.totalCents)
  }
  for (const { id } of rows) assert.ok(guests.sent.has(id), `order ${id} was never sent`)
  assert.deepEqual(await primary.ask(MISCOUNTED, [], 'restaurant'), [], 'a counter is not the sum of the orders: one was carried out twice, or half')
  assert.deepEqual(guests.problems, [])
}

/** Kills it as `kill -9` does, and waits until guests are served again and everything is back. */
export async function isSurvived(system: System, guests: Guests, name: string, options = { unnoticed: false }): Promise<string> {
  const before = { count: guests.times.length, failed: guests.failed, found: guests.foundPlaced }
  const killed = system.child(name)
  killed.kill('SIGKILL')
  await killed.exited
  const isServed = () => guests.times.length >= before.count + MORE
  await eventually(`${MORE} orders are acknowledged after ${name} was killed`, isServed)
  await system.whenWhole()
  assert.notEqual(system.child(name).pid, killed.pid, `${name} was not started again`)
  await nothingIsLostOrDoubled(system, guests)
  if (options.unnoticed) assert.equal(guests.failed, before.failed, `requests failed when ${name} was killed`)
  const slowest = Math.max(...guests.times.slice(before.count))
  return `${guests.acknowledged.size} orders acknowledged, all there once; slowest since ${slowest} ms, ` +
    `${guests.failed - before.failed} requests failed, ${guests.foundPlaced - before.found} orders found placed when sent again`
}

/** pooler is told nothing: it finds the promoted replica, and reads go to the replicas that are left. */
export async function poolerFollows(system: System): Promise<void> {
  const { primary } = system.cluster
  const nodes = await system.console('SHOW NODES')
  assert.deepEqual(nodes.filter(({ role }) => role === 'primary').map(({ node }) => node), [`127.0.0.1:${primary.port}`])
  assert.equal(nodes.filter(({ role }) => role === 'replica').length, 2)
}
