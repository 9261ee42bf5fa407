import { randomInt, randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'

export interface SentOrder {
  id: string
  customer: string
  table: number
  lines: { dish: number; quantity: number }[]
}

export interface Acknowledged extends SentOrder {
  number: number
  totalCents: number
}

/** No answer for longer than any failure here lasts: then the guest gives up, and that is an error. */
const PATIENCE = 60_000
const ANSWER_WITHIN = 40_000
const DISHES = 12
/** One in so many orders loses its connection before it is answered, and is sent again. */
const IMPATIENT = 10

/** Guests of the restaurant, each doing one thing after the other. */
export class Guests {
  readonly acknowledged = new Map<string, Acknowledged>()
  /** All that were sent: those without an answer may have been carried out, or not. */
  readonly sent = new Map<string, SentOrder>()
  readonly problems: string[] = []
  browsed = 0
  /** Requests that were answered with an error, or not at all, and sent again. */
  failed = 0
  /** Answers that were found by a retry: the first attempt had been carried out. */
  foundPlaced = 0
  /** Times until an order was acknowledged, retries included. */
  readonly times: number[] = []
  private stopping = false
  private everyone: Promise<void>[] = []

  /** Each request goes to one of these addresses. */
  constructor(private readonly urls: string[]) {}

  start(counts: { browsing: number; ordering: number }): this {
    const repeat = async (one: () => Promise<void>) => {
      while (!this.stopping) {
        await one().catch((error) => void this.problems.push(error.message))
        await delay(randomInt(5, 20))
      }
    }
    this.everyone = [
      ...Array.from({ length: counts.browsing }, () => repeat(() => this.browse())),
      ...Array.from({ length: counts.ordering }, () => repeat(() => this.order())),
    ]
    return this
  }

  /** Lets everyone finish: an order under way is sent again until it is answered. */
  async stop(): Promise<void> {
    this.stopping = true
    await Promise.all(this.everyone)
  }

  private async browse(): Promise<void> {
    const dishes = await this.ask<unknown[]>('GET', '/api/menu')
    if (dishes.body.length !== DISHES) this.problems.push(`The menu has ${dishes.body.length} dishes.`)
    await this.ask('GET', '/api/orders?only=all')
    this.browsed += 2
  }

  private async order(): Promise<void> {
    const wanted: SentOrder = {
      id: randomUUID(), customer: `Load ${randomInt(1000)}`, table: randomInt(1, 100),
      lines: Array.from({ length: randomInt(1, 4) }, (_, n) => ({ dish: 1 + n * 4 + randomInt(4), quantity: randomInt(1, 4) })),
    }
    this.sent.set(wanted.id, wanted)
    const begun = Date.now()
    const patience = randomInt(IMPATIENT) === 0 ? randomInt(1, 100) : ANSWER_WITHIN
    const { body, status, tries } = await this.ask<Acknowledged>('PUT', `/api/orders/${wanted.id}`, wanted, patience)
    this.times.push(Date.now() - begun)
    if (status === 200 && tries > 1) this.foundPlaced++
    this.acknowledged.set(wanted.id, { ...wanted, number: body.number, totalCents: body.totalCents })
    await this.look(wanted)
  }

  /** The next page, from whatever instance and server: what was acknowledged has to be there. */
  private async look(wanted: SentOrder): Promise<void> {
    const { body, status } = await this.ask<SentOrder>('GET', `/api/orders/${wanted.id}`)
    const difference = status === 200 ? differs(wanted, body) : `answered with ${status}`
    if (difference) this.problems.push(`Order ${wanted.id} on the page after it was placed: ${difference}`)
  }

  /** Sends it until there is an answer that counts; 404 counts, for `look`. */
  private async ask<T>(method: string, path: string, body?: unknown, patience = ANSWER_WITHIN): Promise<{ body: T; status: number; tries: number }> {
    const end = Date.now() + PATIENCE
    for (let tries = 1; ; tries++) {
      let problem: string
      try {
        const response = await fetch(this.urls[randomInt(this.urls.length)] + path, {
          method, signal: AbortSignal.timeout(tries === 1 ? patience : ANSWER_WITHIN),
          ...(body ? { headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) } : {}),
        })
        const text = await response.text()
        if (response.status < 500) {
          if (response.ok || response.status === 404) return { body: JSON.parse(text) as T, status: response.status, tries }
          throw new Error(`${method} ${path}: ${response.status} ${text}`, { cause: 'refused' })
        }
        problem = `${response.status} ${text.slice(0, 200)}`
      } catch (error) {
        if (error instanceof Error && error.cause === 'refused') throw error
        problem = String(error)
      }
      if (Date.now() > end) throw new Error(`${method} ${path}: no answer in ${PATIENCE / 1000} s, at last: ${problem}`)
      // Those who hang up on purpose cannot complain.
      if (patience === ANSWER_WITHIN || tries > 1) this.failed++
      await delay(100)
    }
  }
}

/** What is not as it was ordered; empty: nothing. */
export function differs(wanted: SentOrder, found: SentOrder): string {
  const of = ({ customer, table, lines }: SentOrder) =>
    JSON.stringify([customer, table, lines.map(({ dish, quantity }) => [dish, quantity]).sort((a, b) => a[0]! - b[0]!)])
  return of(wanted) === of(found) ? '' : `${of(found)}, ordered was ${of(wanted)}`
}

export function percentile(times: number[], share: number): number {
  const sorted = [...times].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0
}
