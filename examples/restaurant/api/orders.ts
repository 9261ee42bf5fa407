import { database, isDuplicate } from './database.ts'
import { INSTANCE } from './environment.ts'
import { BadRequest, before, type NewOrder, type Status } from './input.ts'

const whole = { lines: { include: { dish: true }, orderBy: { dishId: 'asc' } } } as const
const find = (id: string) => database.order.findUnique({ where: { id }, include: whole })
type Found = NonNullable<Awaited<ReturnType<typeof find>>>
export type Order = ReturnType<typeof show>

/** As clients see it. */
function show({ id, number, customer, tableNumber, status, totalCents, takenBy, placedAt, lines }: Found) {
  return {
    id, number, customer, table: tableNumber, status, totalCents, takenBy, placedAt: placedAt.toISOString(),
    lines: lines.map(({ dish, quantity, priceCents }) => ({ dish: dish.id, name: dish.name, quantity, priceCents })),
  }
}

/**
 * Places an order, or finds that it has been placed: however often a client repeats it, and through whatever instance, it is
 * carried out once. All of it is one transaction, so that the counters of `dish_sales` tell if it were not.
 */
export async function place(id: string, wanted: NewOrder): Promise<{ order: Order; isNew: boolean }> {
  const earlier = await find(id)
  if (earlier) return { order: same(earlier, wanted), isNew: false }
  const dishes = await database.dish.findMany({ where: { id: { in: wanted.lines.map(({ dish }) => dish) } } })
  const prices = new Map(dishes.map((dish) => [dish.id, dish.priceCents]))
  const lines = wanted.lines.map(({ dish, quantity }) => {
    const priceCents = prices.get(dish)
    if (priceCents === undefined) throw new BadRequest(`There is no dish ${dish}: see /api/menu.`)
    return { dishId: dish, quantity, priceCents }
  })
  const totalCents = lines.reduce((sum, { quantity, priceCents }) => sum + quantity * priceCents, 0)
  try {
    const [order] = await database.$transaction([
      database.order.create({
        data: {
          id, customer: wanted.customer, tableNumber: wanted.table, totalCents, takenBy: INSTANCE,
          lines: { create: lines },
        },
        include: whole,
      }),
      ...lines.map(({ dishId, quantity }) =>
        database.dishSales.update({ where: { dishId }, data: { sold: { increment: quantity } } })),
    ])
    return { order: show(order as Found), isNew: true }
  } catch (error) {
    // Another instance was faster with the same request, a moment ago: a transaction asks the primary, where it is.
    const placed = isDuplicate(error) ? (await database.$transaction([find(id)]))[0] : null
    if (!placed) throw error
    return { order: same(placed, wanted), isNew: false }
  }
}

function same(found: Found, wanted: NewOrder): Order {
  const of = (lines: { dish: number; quantity: number }[]) => lines.map(({ dish, quantity }) => `${dish}×${quantity}`).join()
  const order = show(found)
  if (order.customer === wanted.customer && order.table === wanted.table && of(order.lines) === of(wanted.lines)) return order
  throw new BadRequest('Another order has this id. Make a new UUID for each new order.', 409)
}

export async function get(id: string): Promise<Order> {
  const order = await find(id)
  if (!order) throw new BadRequest('There is no such order.', 404)
  return show(order)
}

/** The newest orders, or those that the kitchen has still to do with. */
export async function list(only: 'open' | 'all'): Promise<Order[]> {
  const orders = await database.order.findMany({
    where: only === 'open' ? { status: { not: 'served' } } : {}, include: whole, orderBy: { placedAt: 'desc' }, take: 40,
  })
  return orders.map(show)
}

/** One step on. Saying it twice is saying it once. */
export async function advance(id: string, next: Status): Promise<Order> {
  const { count } = await database.order.updateMany({ where: { id, status: before(next) }, data: { status: next } })
  const order = await get(id)
  if (count === 0 && order.status !== next) {
    throw new BadRequest(`The order is "${order.status}": it cannot become "${next}".`, 409)
  }
  return order
}
