// The server's live progress, over a WebSocket or server-sent events: protocol.md, section 10.
//
// Rule of this file: a connection that is lost is made again, from the place up to which everything was told (L-RECOVER-1),
// after a wait that grows (L-BACKOFF-1). A token goes in a header and never into an address, so with a credential, and where
// no WebSocket gets through, it is server-sent events, read by `fetch`.

import { backoff } from './planner.js'

const PATIENCE = 10
const REFUSED = new Set([401, 403, 404])

/**
 * Events: `frame` with the frame in `detail`; `change` when `state` has changed; `refused` when the topics may not be
 * watched, or the credential is no longer good.
 */
export class Live extends EventTarget {
  /**
   * @param {Credential} credential
   */
  constructor(credential) {
    super()
    this.topics = []
    /** `idle` without topics, `connecting`, `live`, `waiting` (until `until`, milliseconds since 1970). */
    this.state = 'idle'
    this.until = null
    this.#credential = credential
    this.#run()
  }

  #credential
  #place = null
  #interval = 25
  /** Tries in a row that have not led to a connection. */
  failures = 0
  #sockets = true
  #hush = null
  #end = null
  #skip = null

  /** Watch these topics from now on, none if there are none; with the credential as it is now. */
  follow(topics) {
    this.topics = topics
    this.#place = null
    this.#sockets = true
    this.retry()
  }

  /** Connect again now, and not only when it is time. */
  retry() {
    this.#skip?.()
    this.#end?.('again')
  }

  async #run() {
    for (;;) {
      if (this.topics.length === 0) {
        this.#become('idle')
        await this.#rest(null)
        continue
      }
      this.#become('connecting')
      const socket = this.#sockets && !this.#credential.exists
      const end = await (socket ? this.#overSocket() : this.#overEvents())
      clearTimeout(this.#hush)
      this.#end = null
      if (end === 'again') continue
      if (this.state === 'live') this.failures = 0
      else if (!this.#credential.exists) this.#sockets = !this.#sockets
      this.failures += 1
      const wait = end === 'refused' ? 60 : backoff(this.failures, Math.random())
      this.#become('waiting', Date.now() + wait * 1000)
      if (end === 'refused') this.dispatchEvent(new Event('refused'))
      await this.#rest(wait)
    }
  }

  /** Waits so many seconds, for ever if null, or until `retry`. */
  async #rest(wait) {
    await new Promise((resolve) => {
      const timer = wait === null ? null : setTimeout(resolve, wait * 1000)
      this.#skip = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    this.#skip = null
  }

  #overSocket() {
    return new Promise((resolve) => {
      const address = this.#credential.address('api/live')
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
        const frame = read(data)
        if (frame === null) return end('lost')
        if (frame.type === 'connected') {
          const asked = { action: 'subscribe', id: 1, topics: this.topics }
          socket.send(JSON.stringify(this.#place === null ? asked : { ...asked, since: this.#place }))
        } else if (frame.type === 'error' && frame.id === 1) {
          return end('refused')
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
      const address = this.#credential.address('api/events')
      for (const topic of this.topics) address.searchParams.append('topic', topic)
      if (this.#place) address.searchParams.set('since', `${this.#place.epoch}-${this.#place.offset}`)
      const headers = this.#credential.headers()
      const answer = await fetch(address, { headers, signal: leaving.signal, cache: 'no-store', redirect: 'manual' })
      const type = answer.headers.get('Content-Type') ?? ''
      if (REFUSED.has(answer.status) && type.includes('json')) return 'refused'
      if (!type.startsWith('text/event-stream')) return 'lost' // something else has answered
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
    } finally {
      leaving.abort() // nobody reads on
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

/** A frame; null if it is none, as of something else that took the connection. */
function read(data) {
  try {
    return Object(JSON.parse(data))
  } catch {
    return null
  }
}
