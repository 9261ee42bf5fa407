import type { Server as HttpServer } from 'node:http'
import { createAdapter } from '@socket.io/redis-adapter'
import { createClient } from 'redis'
import { Server } from 'socket.io'
import { INSTANCE, REDIS_URL } from './environment.ts'
import type { Order } from './orders.ts'

/** Rooms: `kitchen` hears of every order, and the id of an order is the room of those who wait for it. */
export async function startLive(http: HttpServer) {
  const publisher = createClient({ url: REDIS_URL })
  const subscriber = publisher.duplicate()
  // Both connect again by themselves. Meanwhile clients of this instance still hear what happens at this instance.
  for (const client of [publisher, subscriber]) client.on('error', (error) => console.error(`Redis: ${error.message}`))
  const publish = publisher.publish.bind(publisher)
  // The adapter waits for no answer, and a rejection that nobody handles ends the process.
  Object.assign(publisher, {
    publish: (channel: string, message: string) => publish(channel, message).catch((error) => {
      console.error(`Redis: an event was not published: ${error.message}`)
    }),
  })
  await Promise.all([publisher.connect(), subscriber.connect()])

  const io = new Server(http, { adapter: createAdapter(publisher, subscriber) })
  io.on('connection', (socket) => {
    socket.emit('instance', INSTANCE)
    // Answered when it holds: a client that asks for the state after the answer misses nothing.
    socket.on('watch', async (room, done) => {
      if (typeof room !== 'string' || room.length > 36 || typeof done !== 'function') return
      await socket.join(room)
      done(true)
    })
  })
  // Events are lost while Redis is away; what they told of is not: pages ask for it again.
  subscriber.on('ready', () => io.local.emit('missed'))
  return {
    /** To all who watch, whatever instance they are connected to. */
    tell: (order: Order) => io.to(['kitchen', order.id]).emit('order', order),
    close: async () => {
      await io.close()
      publisher.destroy()
      subscriber.destroy()
    },
  }
}
