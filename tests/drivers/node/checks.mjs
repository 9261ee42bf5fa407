// Runs the checks of one suite and prints `ok NAME`, `not ok NAME: why` and `note NAME: what` lines.
//
// DATABASE_URL is what is tested, DIRECT_URL is PostgreSQL itself, REPLICA_URL its replica if there is one: a read
// may run there. POOL_SIZE is set when a pooler is in between: then a check may ask that servers were really shared.

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'

export const URL = process.env.DATABASE_URL
export const DIRECT = process.env.DIRECT_URL
export const NODES = [DIRECT, process.env.REPLICA_URL].filter(Boolean)
// What changes behind the back of the pooler (by DIRECT) is seen at once with this; PostgreSQL takes it for any setting.
export const STRICT = "set pooler.read_consistency = 'strict'"
export const POOL_SIZE = Number(process.env.POOL_SIZE ?? 0)
export const CLIENTS = 50
export const ROUNDS = 20
const CHECK_MS = 60_000

const checks = []
export const check = (name, run) => checks.push({ name, run })
export const note = (name, what) => console.log(`note ${name}: ${what}`)
export const range = (count) => Array.from({ length: count }, (_, n) => n)

/** A text that only this client sends, of a length that varies from a few bytes to some KB. */
export const marker = (client, turn) => `client ${client} turn ${turn} ${'x'.repeat((client * turn * 37) % 9000)}`

/** The transactions of many clients met several servers, and no more than the pool has. */
export function serversWereShared(pids) {
  if (!POOL_SIZE) return
  const servers = new Set(pids).size
  assert(servers > 1 && servers <= POOL_SIZE, `${servers} servers for a pool of ${POOL_SIZE}`)
}

/** Asserts that the promise fails with this SQLSTATE. */
export async function raises(state, promise) {
  const error = await promise.then(
    () => assert.fail(`no error instead of ${state}`),
    (error) => error,
  )
  assert.equal(error.code, state, String(error))
  return error
}

export async function until(condition) {
  const deadline = Date.now() + 10_000
  while (!(await condition())) {
    assert(Date.now() < deadline, `waited too long for ${condition}`)
    await delay(5)
  }
}

/**
 * PostgreSQL signals a cancel twice, and these drivers do not wait for the end of the cancel connection:
 * the second signal can hit a later query of the same client. A pooler has to keep that away from its clients.
 */
export async function cancelIsOver(query) {
  if (!POOL_SIZE) await until(() => query().then(() => true, ({ code }) => (assert.equal(code, '57014'), false)))
}

/** Waits until a server process is gone (it runs on this machine): its socket is closed then. */
export const serverExited = (pid) => until(() => !existsSync(`/proc/${pid}`))

export async function main() {
  const only = process.argv.slice(2)
  let failed = 0
  for (const { name, run } of checks.filter(({ name }) => !only.length || only.includes(name))) {
    const timer = new AbortController()
    const timeout = delay(CHECK_MS, undefined, { signal: timer.signal }).then(() => {
      throw new Error(`still running after ${CHECK_MS} ms`)
    })
    try {
      await Promise.race([run(), timeout])
      console.log(`ok ${name}`)
    } catch (error) {
      failed += 1
      console.log(`not ok ${name}: ${String(error).replaceAll('\n', ' ').slice(0, 2000)}`)
      console.error(error)
    } finally {
      timer.abort()
      timeout.catch(() => {})
    }
  }
  process.exit(failed ? 1 : 0)
}
