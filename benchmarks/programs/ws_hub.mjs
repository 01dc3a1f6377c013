// A hub over the package ws, as its documentation shows broadcasting: ws_hub.mjs MODULES PORT
// What there is to tell comes by UDP on the same port.
import { createSocket } from 'node:dgram'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'

const [modules, port] = process.argv.slice(2)
const { WebSocket, WebSocketServer } = createRequire(`${modules}/`)('ws')
const server = createServer((request, response) => response.end())
const hub = new WebSocketServer({ server, perMessageDeflate: false })
const feed = createSocket('udp4')

feed.on('message', (datagram) => {
  const [id, received, arriving] = JSON.parse(datagram).moves[0]
  const now = new Date().toISOString()
  const text = JSON.stringify({
    v: 1,
    type: 'progress',
    task_id: id,
    payload: {
      task_id: id, name: 'file', owner: null, project: 'live', status: 'receiving', progress: 50.0,
      current_step: 'receiving', total_steps: 3, completed_steps: 0, message: 'Bytes are arriving.', length: 1 << 30,
      received, arriving, prefix: 0, speed: 1000000.5, eta: 12.5, errors: 0, retries: 0, error: null, started: now,
      timestamp: now
    }
  })
  for (const client of hub.clients) if (client.readyState === WebSocket.OPEN) client.send(text)
})
feed.bind(Number(port), '127.0.0.1')
server.listen(Number(port), '127.0.0.1')
