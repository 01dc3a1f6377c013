// The server's live progress, over a WebSocket or server-sent events: protocol.md, section 10.
//
// Rule of this file: a connection that is lost is made again, from the place up to which everything was told (L-RECOVER-1),
// after a wait that grows (L-BACKOFF-1). A credential goes in a header and never into an address, so with one, and where no
// WebSocket gets through, it is server-sent events, read by `fetch`.

import { backoff } from './planner.js'

const PATIENCE = 10

/**
 * Events: `frame` with the frame in `detail`; `change` when `state` has changed; `refused` when the topics may not be
 * watched; `unauthenticated` when the server asks for a credential (it waits for `retry` then).
 */
export class Live extends EventTarget {
  /**
   * @param {URL} root where the application is
   * @param {() => string | null} token the credential, if there is one
   * @param {string[]} topics
   */
  constructor(root, token, topics) {
    super()
    this.topics = topics
    /** `connecting`, `live`, `waiting` (until `until`, milliseconds since 1970), `closed`. */
    this.state = 'connecting'
    this.until = null
    this.#root = root
    this.#token = token
    this.#run()
  }

  #root
  #token
  #place = null
  #failures = 0
  #sockets = true
  #hush = null
  #end = null
  #skip = null

  /** Connect again now, and not only when it is time: the credential or the topics are others, or the network is back. */
  retry() {
    this.#skip?.()
    if (this.state === 'live') this.#end?.('again')
  }

  close() {
    this.#become('closed')
    this.#skip?.()
    this.#end?.('closed')
  }

  async #run() {
    while (this.state !== 'closed') {
      this.#become('connecting')
      const socket = this.#sockets && this.#token() === null
      const end = await (socket ? this.#overSocket() : this.#overEvents())
      clearTimeout(this.#hush)
      if (this.state === 'closed') return
      if (end === 'again') continue
      const opened = this.state === 'live'
      if (opened) this.#failures = 0
      else if (this.#token() === null) this.#sockets = !this.#sockets
      this.#failures += 1
      const wait = end === 'unauthenticated' ? 600 : backoff(this.#failures, Math.random())
      this.#become('waiting', Date.now() + wait * 1000)
      if (end === 'unauthenticated' || end === 'refused') this.dispatchEvent(new Event(end))
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, wait * 1000)
        this.#skip = () => {
          clearTimeout(timer)
          resolve()
        }
      })
      this.#skip = null
    }
  }

  #overSocket() {
    return new Promise((resolve) => {
      const address = new URL('api/live', this.#root)
      address.protocol = address.protocol.replace('http', 'ws')
      const socket = new WebSocket(address)
      const end = (why) => {
        socket.onclose = socket.onmessage = null
        socket.close()
        resolve(why)
      }
      this.#end = end
      this.#listen(PATIENCE)
      socket.onclose = ({ code }) => end(code === 4004 ? 'refused' : 'lost')
      socket.onmessage = ({ data }) => {
        const frame = JSON.parse(data)
        if (frame.type === 'connected') {
          const asked = { action: 'subscribe', id: 1, topics: this.topics }
          socket.send(JSON.stringify(this.#place === null ? asked : { ...asked, since: this.#place }))
        } else if (frame.type === 'error' && frame.id === 1) {
          end('refused')
          return
        }
        this.#take(frame)
      }
    })
  }

  async #overEvents() {
    const leaving = new AbortController()
    let why = 'lost'
    this.#end = (reason) => {
      why = reason
      leaving.abort()
    }
    this.#listen(PATIENCE)
    try {
      const address = new URL('api/events', this.#root)
      for (const topic of this.topics) address.searchParams.append('topic', topic)
      if (this.#place) address.searchParams.set('since', `${this.#place.epoch}-${this.#place.offset}`)
      const token = this.#token()
      const headers = token === null ? {} : { Authorization: `Bearer ${token}` }
      const answer = await fetch(address, { headers, signal: leaving.signal, cache: 'no-store' })
      if (answer.status === 401) return 'unauthenticated'
      if (answer.status === 403 || answer.status === 404) return 'refused'
      if (!answer.ok) return 'lost'
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
      let text = ''
      for (;;) {
        const { value, done } = await reader.read()
        if (done) return why
        const events = (text + value).replaceAll('\r\n', '\n').split('\n\n')
        text = events.pop()
        for (const event of events) {
          const data = event.split('\n').filter((line) => line.startsWith('data:')).map((line) => line.slice(5))
          if (data.length > 0) this.#take(JSON.parse(data.join('\n')))
        }
      }
    } catch {
      return why
    }
  }

  #take(frame) {
    if (frame.type === 'connected') {
      this.#interval = frame.payload.ping_interval
      this.#place ??= { epoch: frame.payload.epoch, offset: frame.payload.offset }
      this.#become('live')
    } else if (frame.type === 'synced' || frame.type === 'ping') {
      this.#place = { epoch: frame.payload.epoch, offset: frame.payload.offset }
    } else if (frame.type === 'status') {
      this.#place = { epoch: frame.epoch, offset: frame.offset }
    }
    this.#listen(2 * this.#interval + 2)
    this.dispatchEvent(new CustomEvent('frame', { detail: frame }))
  }

  #interval = 25

  /** Leave the connection if nothing is heard for so many seconds (L-PING-1). */
  #listen(seconds) {
    clearTimeout(this.#hush)
    this.#hush = setTimeout(() => this.#end?.('lost'), seconds * 1000)
  }

  #become(state, until = null) {
    this.state = state
    this.until = until
    this.dispatchEvent(new Event('change'))
  }
}
