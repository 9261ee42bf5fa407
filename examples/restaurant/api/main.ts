import { createServer } from 'node:http'
import express, { type ErrorRequestHandler } from 'express'
import { database, isDatabaseError } from './database.ts'
import { INSTANCE, PORT } from './environment.ts'
import { BadRequest, newOrder, status, uuid } from './input.ts'
import { startLive } from './live.ts'
import * as orders from './orders.ts'

const app = express()
const http = createServer(app)
const live = await startLive(http)

app.disable('x-powered-by')
app.use(express.json({ limit: '64kb' }))
app.use((_request, response, next) => {
  response.set('X-Instance', INSTANCE).set('Cache-Control', 'no-store')
  next()
})

// For balancers: this process is alive. It asks no database, or a failover there would take all instances out.
app.get('/api/health', (_request, response) => void response.json({ instance: INSTANCE }))

app.get('/api/menu', async (_request, response) => {
  response.json(await database.dish.findMany({ orderBy: { id: 'asc' } }))
})

app.get('/api/orders', async (request, response) => {
  response.json(await orders.list(request.query.only === 'open' ? 'open' : 'all'))
})

app.get('/api/orders/:id', async (request, response) => {
  response.json(await orders.get(uuid(request.params.id)))
})

// PUT with an id of the client's, not POST: clients and balancers may repeat it.
app.put('/api/orders/:id', async (request, response) => {
  const { order, isNew } = await orders.place(uuid(request.params.id), newOrder(request.body))
  // Told again when repeated: the instance that placed it may have died in between. Pages know orders by their ids.
  live.tell(order)
  response.status(isNew ? 201 : 200).json(order)
})

app.put('/api/orders/:id/status', async (request, response) => {
  const order = await orders.advance(uuid(request.params.id), status(request.body?.status))
  live.tell(order)
  response.json(order)
})

app.use('/api', (_request, response) => void response.status(404).json({ error: 'There is nothing at this address.' }))

const failed: ErrorRequestHandler = (error, request, response, next) => {
  if (response.headersSent) return next(error)
  if (error instanceof BadRequest) {
    response.status(error.status).json({ error: error.message })
  } else if (error?.type?.startsWith('entity.') || error instanceof SyntaxError) {
    response.status(error.status ?? 400).json({ error: `The body is not JSON that can be read: ${error.message}` })
  } else if (isDatabaseError(error)) {
    // Prisma's messages begin with a picture of the code.
    console.error(`${request.method} ${request.path}: ${error.message.trim().split('\n').at(-1)}`)
    response.status(503).set('Retry-After', '1').json({ error: 'The database did not answer. Send the same request again.' })
  } else {
    console.error(error)
    response.status(500).json({ error: 'This should not have happened; the log of the instance tells more.' })
  }
}
app.use(failed)

http.listen(PORT, '127.0.0.1', () => console.log(`${INSTANCE} listens on ${PORT}`))
http.on('error', (error) => {
  console.error(`Cannot listen on port ${PORT}: ${error.message}`)
  process.exit(1)
})

let stopping = false
async function stop() {
  if (stopping) return
  stopping = true
  // Closes the HTTP server as well: requests under way are answered.
  await live.close()
  await database.$disconnect()
  process.exit(0)
}
process.on('SIGINT', stop)
process.on('SIGTERM', stop)
