import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import { API_NAMES, type System } from '../system/system.ts'
import { anOrder, place, request, routes } from './support.ts'

const sold = async (system: System) => {
  const rows = await system.cluster.primary.ask<{ sold: number }>('SELECT sold FROM dish_sales WHERE dish_id = 4', [], 'restaurant')
  return rows[0]!.sold
}

export async function areCarriedOutOnceHoweverOftenTheyCome(system: System) {
  const order = anOrder('Ada')
  const before = await sold(system)
  const answers = await Promise.all(Array.from({ length: 12 }, (_, n) => place(system.apiUrl(API_NAMES[n % 3]!), order)))
  assert.deepEqual(answers.map(({ status }) => status).sort(), [...Array(11).fill(200), 201])
  assert.equal(new Set(answers.map(({ body }) => body.number)).size, 1)
  assert.equal((await place(system.url, order)).status, 200)
  assert.equal(await sold(system), before + 2)

  const other = await place(system.url, { ...order, table: 8 })
  assert.equal(other.status, 409)
  assert.match(String(other.body.error), /Make a new UUID/)
}

export async function thatMakeNoSenseAreRefusedWithTheRemedy(system: System) {
  const order = anOrder('Ada')
  const refused = async (body: unknown, status: number, message: RegExp, id = order.id) => {
    const answer = await request('PUT', `${system.url}/api/orders/${id}`, body)
    assert.equal(answer.status, status, JSON.stringify(answer.body))
    assert.match(String(answer.body.error), message)
  }
  await refused(order, 400, /UUID/, '12')
  await refused({ ...order, customer: ' ' }, 400, /"customer"/)
  await refused({ ...order, table: '7' }, 400, /"table"/)
  await refused({ ...order, lines: [] }, 400, /"lines"/)
  await refused({ ...order, lines: [null] }, 400, /"dish"/)
  await refused({ ...order, lines: [{ dish: 4, quantity: 21 }] }, 400, /"quantity"/)
  await refused({ ...order, lines: [{ dish: 4, quantity: 1 }, { dish: 4, quantity: 1 }] }, 400, /once/)
  await refused({ ...order, lines: [{ dish: 99, quantity: 1 }] }, 400, /no dish 99/)
  const garbled = await fetch(`${system.url}/api/orders/${order.id}`, {
    method: 'PUT', headers: { 'Content-Type': 'application/json' }, body: '{',
  })
  assert.equal(garbled.status, 400)
  assert.equal((await request('GET', `${system.url}/api/orders/${order.id}`)).status, 404)
}

export async function goThroughTheKitchenStepByStep(system: System) {
  const order = anOrder('Ada')
  await place(system.url, order)
  const to = (status: string) => request('PUT', `${system.url}/api/orders/${order.id}/status`, { status })
  assert.equal((await to('ready')).status, 409)
  assert.equal((await to('eaten')).status, 400)
  for (const status of ['cooking', 'cooking', 'ready', 'served']) {
    assert.equal((await to(status)).body.status, status)
    assert.equal((await request('GET', `${system.url}/api/orders/${order.id}`)).body.status, status)
  }
  assert.equal((await to('cooking')).status, 409)
}

/** Replicas that are behind: without what pooler knows of them, the next page would not have the order. */
export async function areOnTheNextPageOfAnyInstance(system: System) {
  const { primary, replicas } = system.cluster
  const onReplicas = async (id: string) => (await Promise.all(replicas.map((node) =>
    node.ask('SELECT FROM orders WHERE id = $1', [id], 'restaurant')))).flat().length
  for (const node of replicas) await node.delay('300ms')
  try {
    const before = await routes(system)
    let early = 0
    for (let n = 0; n < 30; n++) {
      const order = anOrder(`Guest ${n}`)
      const placed = await place(system.apiUrl(API_NAMES[n % 3]!), order)
      assert.equal(placed.status, 201)
      const missing = onReplicas(order.id)
      const next = await request('GET', `${system.apiUrl(API_NAMES[(n + 1) % 3]!)}/api/orders/${order.id}`)
      assert.equal(next.status, 200, `order ${n} is not on the next page`)
      assert.equal((next.body.lines as unknown[]).length, 2)
      const newest = await request('GET', `${system.apiUrl(API_NAMES[(n + 2) % 3]!)}/api/orders?only=open`)
      assert.ok((newest.body as unknown as { id: string }[]).some(({ id }) => id === order.id), `order ${n} is not in the list`)
      if ((await missing) < replicas.length) early++
      await request('GET', `${system.url}/api/menu`)
    }
    assert.ok(early > 0, 'the replicas were never behind: this shows nothing')
    // What nobody has written to is read there all the same.
    const { replica } = await routes(system)
    assert.ok(replica - before.replica >= 30, `of 30 menus ${replica - before.replica} were read on replicas`)
  } finally {
    for (const node of replicas) await node.delay('0')
  }
  assert.equal(system.cluster.primary, primary)
}

export async function areReadOnReplicas(system: System) {
  await system.whenWhole()
  const order = anOrder('Grace')
  await place(system.url, order)
  await delay(500)
  const before = await routes(system)
  for (let n = 0; n < 40; n++) assert.equal((await request('GET', `${system.url}/api/orders/${order.id}`)).status, 200)
  const after = await routes(system)
  assert.ok(after.replica - before.replica >= 40, `${after.replica - before.replica} reads on replicas`)
  assert.equal(after.primary, before.primary)
  assert.equal(after.replicasUsed, 2)
}
