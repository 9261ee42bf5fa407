import { ask, put, type Order } from './shared/api.ts'
import { byId, element, follow, money } from './shared/dom.ts'
import { watch } from './shared/live.ts'

const NEXT = { placed: 'cooking', cooking: 'ready', ready: 'served', served: undefined } as const
const MOST = 40

const orders = new Map<string, Order>()
let problem = ''

const showsAll = () => location.pathname === '/admin/all'

async function refresh() {
  try {
    const found = await ask<Order[]>(`/api/orders?only=${showsAll() ? 'all' : 'open'}`)
    orders.clear()
    for (const order of found) orders.set(order.id, order)
    problem = ''
  } catch (error) {
    problem = error instanceof Error ? error.message : String(error)
  }
  show()
}

function changed(order: Order) {
  orders.set(order.id, order)
  show()
}

async function advance(order: Order, status: string) {
  try {
    changed(await put<Order>(`/api/orders/${order.id}/status`, { status }))
  } catch {
    // Somebody else was faster, most likely.
    await refresh()
  }
}

function row(order: Order) {
  const next = NEXT[order.status]
  return element('article', { class: `order ${order.status}`, 'data-order': order.id },
    element('h2', {}, `No. ${order.number} · table ${order.table} · ${order.customer}`),
    element('p', {}, order.lines.map(({ quantity, name }) => `${quantity} × ${name}`).join(', ')),
    element('p', { class: 'note' }, `${money(order.totalCents)} · taken by ${order.takenBy}`),
    element('span', { class: 'status' }, order.status),
    next ? element('button', { click: () => void advance(order, next) }, `→ ${next}`) : '')
}

function show() {
  const shown = [...orders.values()]
    .filter(({ status }) => showsAll() || status !== 'served')
    .sort((a, b) => b.number - a.number)
    .slice(0, MOST)
  byId('page').replaceChildren(
    element('h1', {}, showsAll() ? 'All orders' : 'Open orders'),
    ...(problem ? [element('p', { class: 'problem' }, problem)] : []),
    ...(shown.length ? shown.map(row) : [element('p', { class: 'note' }, 'Nothing to do.')]))
}

follow('/admin/', () => void refresh())
watch(() => 'kitchen', changed, () => void refresh())
show()
