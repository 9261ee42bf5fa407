import { io } from 'socket.io-client'
import { byId } from './dom.ts'
import type { Order } from './api.ts'

/**
 * Calls `changed` with every order of the room that changes, and `refresh` whenever something may have been missed: in the
 * beginning, after each lost connection, and when the server says so.
 */
export function watch(room: () => string | undefined, changed: (order: Order) => void, refresh: () => void): () => void {
  // `?transport=polling` in the page's address is for networks that let no websocket through.
  const polling = new URLSearchParams(location.search).get('transport') === 'polling'
  const socket = io({ transports: [polling ? 'polling' : 'websocket'], reconnectionDelayMax: 2000 })
  const join = () => {
    const wanted = room()
    if (wanted && socket.connected) socket.emit('watch', wanted, refresh)
  }
  socket.on('connect', join)
  socket.on('instance', (instance: string) => { byId('live').textContent = `live from ${instance}` })
  socket.on('disconnect', () => { byId('live').textContent = 'connecting …' })
  socket.on('order', changed)
  socket.on('missed', refresh)
  return join
}
