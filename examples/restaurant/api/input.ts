/** What a client has sent is wrong; told with status 400 or another one. */
export class BadRequest extends Error {
  constructor(message: string, readonly status = 400) {
    super(message)
  }
}

export interface NewOrder {
  customer: string
  table: number
  lines: { dish: number; quantity: number }[]
}

const STATUSES = ['placed', 'cooking', 'ready', 'served'] as const
export type Status = (typeof STATUSES)[number]

export function uuid(value: unknown): string {
  if (typeof value === 'string' && /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(value)) return value
  throw new BadRequest('The id of an order is a UUID in lower case. Make one for each new order, and use it again for each retry.')
}

function whole(value: unknown, name: string, least: number, most: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most) return value
  throw new BadRequest(`"${name}" has to be a whole number from ${least} to ${most}.`)
}

export function newOrder(body: unknown): NewOrder {
  const { customer, table, lines } = (body ?? {}) as Record<string, unknown>
  if (typeof customer !== 'string' || !customer.trim() || customer.length > 80) {
    throw new BadRequest('"customer" has to be a name of 1 to 80 characters.')
  }
  if (!Array.isArray(lines) || lines.length === 0 || lines.length > 50) {
    throw new BadRequest('"lines" has to be a list of 1 to 50 {"dish", "quantity"}.')
  }
  const read = lines.map((line) => ({
    dish: whole(line?.dish, 'dish', 1, 2 ** 31 - 1),
    quantity: whole(line?.quantity, 'quantity', 1, 20),
  }))
  if (new Set(read.map(({ dish }) => dish)).size !== read.length) {
    throw new BadRequest('Each dish may be in "lines" once: add up its quantities.')
  }
  // Always in the same order: two orders that count up the same dishes do not wait for each other in a circle.
  read.sort((a, b) => a.dish - b.dish)
  return { customer: customer.trim(), table: whole(table, 'table', 1, 99), lines: read }
}

export function status(value: unknown): Status {
  const found = STATUSES.find((known) => known === value)
  if (found) return found
  throw new BadRequest(`"status" has to be one of ${STATUSES.join(', ')}.`)
}

/** What an order has to be to become this. */
export function before(next: Status): Status {
  const earlier = STATUSES[STATUSES.indexOf(next) - 1]
  if (earlier) return earlier
  throw new BadRequest('No order goes back to "placed".')
}
