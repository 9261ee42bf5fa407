import { ask, put, Refused, type Dish, type Order } from './shared/api.ts'
import { byId, element, follow, money } from './shared/dom.ts'
import { watch } from './shared/live.ts'

/** Kept in the browser until it is answered for: a reload, or another try tomorrow, sends the same id. */
interface Pending {
  id: string
  customer: string
  table: number
  lines: { dish: number; quantity: number }[]
}
const PENDING = 'pending order'

let menu: Dish[] = []
const basket = new Map<number, number>()
let order: Order | undefined
let problem = ''

const orderId = () => location.pathname.match(/^\/orders\/([0-9a-f-]{36})$/)?.[1]
const pending = () => JSON.parse(localStorage.getItem(PENDING) ?? 'null') as Pending | null
const text = (error: unknown) => (error instanceof Error ? error.message : String(error))

async function load() {
  const id = orderId()
  try {
    if (id) order = await ask<Order>(`/api/orders/${id}`)
    else menu = await ask<Dish[]>('/api/menu')
    problem = ''
  } catch (error) {
    problem = text(error)
  }
  show()
}

async function send(wanted: Pending) {
  localStorage.setItem(PENDING, JSON.stringify(wanted))
  problem = ''
  show()
  try {
    const placed = await put<Order>(`/api/orders/${wanted.id}`, wanted)
    localStorage.removeItem(PENDING)
    basket.clear()
    go(`/orders/${placed.id}`)
  } catch (error) {
    // Refused: there is nothing to repeat. Otherwise nobody knows, and the same id can be sent again.
    if (error instanceof Refused) localStorage.removeItem(PENDING)
    problem = text(error)
    show()
  }
}

function submit(event: Event) {
  event.preventDefault()
  const form = new FormData(event.target as HTMLFormElement)
  void send({
    id: crypto.randomUUID(),
    customer: String(form.get('customer')),
    table: Number(form.get('table')),
    lines: [...basket].map(([dish, quantity]) => ({ dish, quantity })),
  })
}

function choose(dish: Dish, change: number) {
  const quantity = Math.min(20, Math.max(0, (basket.get(dish.id) ?? 0) + change))
  if (quantity) basket.set(dish.id, quantity)
  else basket.delete(dish.id)
  show()
}

function dishes() {
  return [...new Set(menu.map(({ category }) => category))].flatMap((category) => [
    element('h2', {}, category),
    ...menu.filter((dish) => dish.category === category).map((dish) =>
      element('article', { class: 'dish', 'data-dish': dish.id },
        element('h3', {}, dish.name),
        element('p', { class: 'note' }, dish.description),
        element('span', { class: 'price' }, money(dish.priceCents)),
        element('button', { class: 'less', 'aria-label': `Less ${dish.name}`, click: () => choose(dish, -1) }, '−'),
        element('output', {}, basket.get(dish.id) ?? 0),
        element('button', { class: 'more', 'aria-label': `More ${dish.name}`, click: () => choose(dish, 1) }, '+'))),
  ])
}

function checkout() {
  const waiting = pending()
  if (waiting) {
    return element('section', { class: 'basket' },
      element('p', {}, problem ? 'Your order has not been answered yet.' : 'Sending your order …'),
      ...(problem ? [element('button', { id: 'again', click: () => void send(waiting) }, 'Send it again')] : []))
  }
  if (!basket.size) return element('p', { class: 'note' }, 'Choose something good.')
  const total = menu.reduce((sum, { id, priceCents }) => sum + priceCents * (basket.get(id) ?? 0), 0)
  return element('form', { class: 'basket', submit },
    element('label', {}, 'Name', element('input', { name: 'customer', required: true, maxlength: 80, value: remembered.customer })),
    element('label', {}, 'Table', element('input', { name: 'table', type: 'number', min: 1, max: 99, required: true, value: remembered.table })),
    element('button', { id: 'order' }, `Order for ${money(total)}`))
}

/** What has been typed survives that the page is drawn again. */
const remembered = { customer: '', table: '' }
byId('page').addEventListener('input', ({ target }) => {
  if (target instanceof HTMLInputElement && (target.name === 'customer' || target.name === 'table')) remembered[target.name] = target.value
})

function ticket(shown: Order) {
  return [
    element('h1', {}, `Order no. ${shown.number}`),
    element('p', { class: `order ${shown.status}` }, element('span', { class: 'status' }, shown.status)),
    element('ul', {}, ...shown.lines.map(({ quantity, name, priceCents }) => element('li', {}, `${quantity} × ${name}, ${money(quantity * priceCents)}`))),
    element('p', {}, `${money(shown.totalCents)} for ${shown.customer} at table ${shown.table}`),
    element('p', { class: 'note', id: 'taken-by' }, `taken by ${shown.takenBy}`),
    element('a', { href: '/' }, 'Order something else'),
  ]
}

function show() {
  const isTicket = orderId() !== undefined
  const shown = order && order.id === orderId() ? ticket(order) : []
  byId('page').replaceChildren(
    ...(problem ? [element('p', { class: 'problem' }, problem)] : []),
    ...(isTicket ? shown : [element('h1', {}, 'Menu'), ...dishes(), checkout()]))
}

const joinRoom = watch(orderId, (changed) => {
  if (changed.id !== orderId()) return
  order = changed
  show()
}, () => {
  // The menu says nothing live, and may have somebody typing a name below it.
  if (orderId()) void load()
})

const go = follow('/', () => {
  joinRoom()
  void load()
})

const unanswered = pending()
if (unanswered) void send(unanswered)
void load()
