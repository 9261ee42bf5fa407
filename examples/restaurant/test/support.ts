import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import type { SentOrder } from '../load/guests.ts'
import { API_NAMES, type System } from '../system/system.ts'

export type ApiName = (typeof API_NAMES)[number]

export function anOrder(customer: string, lines = [{ dish: 4, quantity: 2 }, { dish: 11, quantity: 1 }]): SentOrder {
  return { id: randomUUID(), customer, table: 7, lines }
}

export interface Answer {
  status: number
  instance: string
  body: Record<string, unknown>
}

export async function request(method: string, url: string, body?: unknown): Promise<Answer> {
  const response = await fetch(url, {
    method, ...(body === undefined ? {} : { headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }),
  })
  return { status: response.status, instance: response.headers.get('X-Instance') ?? '', body: await response.json() as Answer['body'] }
}

export const place = (url: string, order: SentOrder) => request('PUT', `${url}/api/orders/${order.id}`, order)

/** Until it is so; an assertion that tells what it waited for, and not a matter of time. */
export async function eventually<T>(what: string, look: () => Promise<T | undefined | false> | T | undefined | false, seconds = 60): Promise<T> {
  const end = Date.now() + seconds * 1000
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    assert.ok(Date.now() < end, `after ${seconds} s it is still not so: ${what}`)
    await delay(50)
  }
}

/** How many requests each kind of server has had, as pooler counts them. */
export async function routes(system: System): Promise<{ primary: number; replica: number; replicasUsed: number }> {
  const rows = await system.console('SHOW ROUTES')
  const sum = (role: string) => rows.filter(({ route }) => route?.startsWith(role))
  const count = (found: typeof rows) => found.reduce((total, { requests }) => total + Number(requests), 0)
  return {
    primary: count(sum('primary')), replica: count(sum('replica')),
    replicasUsed: new Set(sum('replica').map(({ node }) => node)).size,
  }
}
