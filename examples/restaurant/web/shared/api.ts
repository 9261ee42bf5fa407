export interface Dish {
  id: number
  category: string
  name: string
  description: string
  priceCents: number
}

export interface Order {
  id: string
  number: number
  customer: string
  table: number
  status: 'placed' | 'cooking' | 'ready' | 'served'
  totalCents: number
  takenBy: string
  placedAt: string
  lines: { dish: number; name: string; quantity: number; priceCents: number }[]
}

/** What the server has said no to: saying it again does not help. */
export class Refused extends Error {}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/**
 * Sends a request until it is answered, for up to half a minute. All requests here may be repeated: they only read, or they are
 * PUTs that mean the same when they come twice.
 */
export async function ask<T>(path: string, options: RequestInit = {}): Promise<T> {
  const end = Date.now() + 30_000
  for (let wait = 200; ; wait = Math.min(wait * 2, 2000)) {
    let problem: string
    try {
      const response = await fetch(path, options)
      const body = await response.json()
      if (response.ok) return body as T
      problem = body.error
      if (response.status < 500) throw new Refused(problem)
    } catch (error) {
      if (error instanceof Refused) throw error
      problem = `The restaurant does not answer (${error}).`
    }
    if (Date.now() + wait > end) throw new Error(problem)
    await pause(wait)
  }
}

export const put = <T>(path: string, body: unknown): Promise<T> =>
  ask<T>(path, { method: 'PUT', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) })
