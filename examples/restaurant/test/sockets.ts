import assert from 'node:assert/strict'
import { io, type Socket } from 'socket.io-client'
import { API_NAMES, type System } from '../system/system.ts'
import { anOrder, eventually, place, type ApiName } from './support.ts'

interface Connection {
  socket: Socket
  instance: ApiName
  heard: Set<string>
}

async function connect(url: string, ...transports: string[]): Promise<Connection> {
  const socket = io(url, { transports, forceNew: true, reconnection: false })
  const instance = await new Promise<ApiName>((resolve, reject) => {
    socket.once('instance', resolve)
    socket.once('connect_error', reject)
  })
  const heard = new Set<string>()
  socket.on('order', ({ id }: { id: string }) => heard.add(id))
  await socket.emitWithAck('watch', 'kitchen')
  return { socket, instance, heard }
}

/** Everyone hears of an order, whichever instance it was placed at. */
async function allHear(system: System, connections: Connection[]) {
  for (const name of API_NAMES) {
    const order = anOrder('Live')
    assert.equal((await place(system.apiUrl(name), order)).status, 201)
    await eventually('all have heard', () => connections.every(({ heard }) => heard.has(order.id)))
  }
}

export async function websocketsGoAnywhere(system: System, url: string) {
  const connections: Connection[] = []
  try {
    for (let n = 0; n < 9; n++) connections.push(await connect(url, 'websocket'))
    assert.deepEqual([...new Set(connections.map(({ instance }) => instance))].sort(), [...API_NAMES])
    await allHear(system, connections)
  } finally {
    for (const { socket } of connections) socket.disconnect()
  }
}

export async function pollingStaysWhereItBegan(system: System, url: string) {
  const connections: Connection[] = []
  try {
    for (let n = 0; n < 3; n++) connections.push(await connect(url, 'polling'))
    // All come from one address.
    assert.equal(new Set(connections.map(({ instance }) => instance)).size, 1)
    await allHear(system, connections)
    assert.ok(connections.every(({ socket }) => socket.io.engine.transport.name === 'polling'))

    // A session that begins with polling, as Socket.IO does by default, goes on as a websocket at the same instance.
    const upgraded = await connect(url, 'polling', 'websocket')
    connections.push(upgraded)
    await eventually('the session is a websocket', () => upgraded.socket.io.engine.transport.name === 'websocket')
    await allHear(system, [upgraded])
  } finally {
    for (const { socket } of connections) socket.disconnect()
  }
}

/** Why: with the Redis adapter, too, a session of polling is known to one instance. */
export async function pollingFailsWithoutStickiness(system: System) {
  const at = (name: ApiName, more = '') => fetch(`${system.apiUrl(name)}/socket.io/?EIO=4&transport=polling${more}`)
  const opened = await (await at('api1')).text()
  const { sid } = JSON.parse(opened.slice(1)) as { sid: string }
  const elsewhere = await at('api2', `&sid=${sid}`)
  assert.equal(elsewhere.status, 400)
  assert.match(await elsewhere.text(), /Session ID unknown/)
}
