import { setTimeout as delay } from 'node:timers/promises'
import { readOptions, wholeNumber } from '../system/options.ts'
import { differs, Guests, percentile, type SentOrder } from './guests.ts'

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '30' },
    browsing: { type: 'string', default: '10' },
    ordering: { type: 'string', default: '5' },
  },
})
const url = (positionals[0] ?? 'http://127.0.0.1:8080').replace(/\/$/, '')

const seconds = wholeNumber('seconds', values.seconds, 86_400)
const counts = {
  browsing: wholeNumber('browsing', values.browsing, 1000), ordering: wholeNumber('ordering', values.ordering, 1000),
}
await fetch(`${url}/api/health`).catch(() => {
  console.error(`Nobody answers at ${url}. Start examples/restaurant/start.sh, and give this the address that it prints.`)
  process.exit(1)
})

const guests = new Guests([url]).start(counts)
let interrupted = false
process.on('SIGINT', () => { interrupted = true })
let before = { browsed: 0, orders: 0 }
for (let second = 1; second <= seconds && !interrupted; second++) {
  await delay(1000)
  const { browsed, times, failed, problems } = guests
  const bar = '█'.repeat(Math.round((second / seconds) * 20)).padEnd(20, '░')
  const latest = times.slice(before.orders)
  const line = `${bar} ${second} s  pages ${browsed - before.browsed}/s  orders ${latest.length}/s  ` +
    `p50 ${percentile(latest, 0.5)} ms  p99 ${percentile(latest, 0.99)} ms  failed ${failed}  problems ${problems.length}`
  process.stdout.write(process.stdout.isTTY ? `\r\x1b[K${line}` : `${line}\n`)
  before = { browsed, orders: times.length }
}
console.log('\nLetting everyone finish')
await guests.stop()

let wrong = 0
for (const order of guests.acknowledged.values()) {
  const response = await fetch(`${url}/api/orders/${order.id}`)
  const difference = response.ok ? differs(order, await response.json() as SentOrder) : `${response.status}`
  if (difference) {
    wrong++
    console.log(`Order ${order.id}: ${difference}`)
  }
}
console.log(`${guests.acknowledged.size} orders acknowledged, ${guests.acknowledged.size - wrong} of them found as they were ordered; ` +
  `${guests.browsed} pages, ${guests.failed} requests failed and were sent again, ` +
  `${guests.foundPlaced} orders found placed when sent again.`)
for (const problem of guests.problems.slice(0, 10)) console.log(`Problem: ${problem}`)
process.exit(wrong || guests.problems.length ? 1 : 0)
