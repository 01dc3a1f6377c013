// What the page knows of each upload, and how that is put in words.
//
// Rule of this file: values only, no elements and no requests. What the server says comes in by `apply` (the payload of
// protocol.md, section 10) or `applyState` (D-JSON-1); for an upload of this page, its own object knows better.

import { duration, percent, size, speed } from './format.js'

const STEPS = ['receiving', 'verifying', 'publishing']
/** How far in its life an upload is in each state: it never goes back. */
const LIFE = { receiving: 0, verifying: 0, complete: 1, failed: 1, expired: 2, terminated: 2 }
/** Seconds without a byte after which an upload is not shown as one that moves. */
const STILL = 30
/** How many of those that are over are kept. */
export const MOST_OVER = 40
/** Seconds that a plot may show. */
const WINDOWS = [30, 60, 120, 300]

/** Values of the last `span` seconds, one for each of them. */
export class Series {
  constructor(span) {
    this.span = span
    this.points = []
  }

  /** @param {number} at seconds */
  push(at, value) {
    const { points } = this
    if (points.length > 0 && at <= points[points.length - 1][0]) return
    points.push([at, value])
    while (points[0][0] < at - this.span) points.shift()
  }

  /** How many of the last seconds there is something to see of: in steps, so that a plot does not shift all the time. */
  get window() {
    const { points, span } = this
    const age = points.length > 0 ? points[points.length - 1][0] - points[0][0] : 0
    return WINDOWS.find((each) => each < span && each >= age) ?? span
  }

  clear() {
    this.points.length = 0
  }

  get peak() {
    return this.points.reduce((most, [, value]) => Math.max(most, value), 0)
  }
}

export class Item {
  constructor(id) {
    this.id = id
    this.name = ''
    this.status = 'receiving'
    this.length = null
    this.received = 0
    this.speed = 0
    this.eta = null
    this.step = 'receiving'
    this.message = ''
    this.error = null
    this.retries = 0
    this.project = null
    this.owner = null
    this.digest = null
    /** Where the file is to be had, null if it is not. */
    this.href = null
    this.started = 0
    /** When it has changed, and when bytes came, in milliseconds since 1970. */
    this.changed = 0
    this.moved = 0
    /** The ranges that the server has, `[start, end)` in turn, as of when it had `storedAt` bytes: see sight.js. */
    this.stored = []
    this.storedAt = null
    /** The upload, if this page carries it out; what is remembered of it, if this browser began it and lacks the file. */
    this.upload = null
    this.record = null
    /** Whether the file of it may be sent from here, and was not chosen yet: a URL was signed for it. */
    this.wanted = false
    this.series = new Series(120)
  }

  get ranges() {
    return !this.upload || (this.isAhead && this.storedAt === this.received) ? this.stored : this.upload.ranges
  }

  /** Whether the server has more than this page knows of: of the upload of somebody else, or where an answer was missed. */
  get isAhead() {
    return !this.isOver && (!this.upload || (!this.upload.running && this.upload.received < this.received))
  }

  get flying() {
    return this.upload?.running ? this.upload.flying : []
  }

  get bytes() {
    if (this.status === 'complete') return this.length ?? this.received
    return Math.max(this.received, this.upload?.received ?? 0)
  }

  get pace() {
    if (this.status !== 'receiving') return 0
    if (this.upload) return this.upload.state === 'sending' && !this.upload.retryAt ? this.upload.speed : 0
    return this.speed ?? 0
  }

  /** Seconds until the last byte, or null. */
  get left() {
    if (this.length === null || this.pace < 1 || this.status !== 'receiving') return null
    return (this.length - this.bytes) / this.pace
  }

  get isOver() {
    return LIFE[this.status] !== 0
  }

  /** `now`, `next`, `rest` or `over`: where on the page it has its place. */
  place(now) {
    if (this.isOver) return 'over'
    if (this.upload?.state === 'waiting' || (this.upload?.state === 'paused' && this.upload.url === null)) return 'next'
    if (this.upload || this.status === 'verifying') return 'now'
    if (this.record || this.wanted) return 'rest'
    return now - this.moved < STILL * 1000 ? 'now' : 'rest'
  }

  /**
   * Whether what is told of the state and of this moment is past already. The end of an upload counts also where a `progress`
   * frame, made while it was written, was told of a later moment.
   */
  #isPast(status, at) {
    const further = LIFE[status] - LIFE[this.status]
    return further < 0 || (further === 0 && at < this.changed)
  }

  /** The payload of a `progress` or `status` frame. */
  apply(payload) {
    const at = Date.parse(payload.timestamp)
    if (this.#isPast(payload.status, at)) return
    if (payload.received + payload.arriving > this.received || payload.speed > 0) this.moved = at
    this.changed = at
    this.name = payload.name
    this.status = payload.status
    this.length = payload.length
    this.received = payload.received
    this.speed = payload.speed
    this.step = payload.current_step
    this.message = payload.message
    this.error = payload.error
    this.retries = payload.retries
    this.project = payload.project
    this.owner = payload.owner
    this.started = Date.parse(payload.started)
  }

  /** The JSON of `/api/uploads`. */
  applyState(state) {
    const at = Date.parse(state.updated)
    this.name = state.name
    this.started = Date.parse(state.created)
    this.digest = state.digests['sha-256'] ?? this.digest
    if (this.#isPast(state.state, at)) return
    if (this.changed === 0) this.moved = at
    this.changed = at
    this.status = state.state
    this.length = state.length
    this.received = state.received
    this.error = state.error
    this.project = state.project ?? null
    this.owner = state.owner ?? null
    this.step = state.progress.current_step
  }

  /** How many of the three steps are behind it, and which one it is in (an index, or null). */
  steps() {
    if (this.status === 'complete') return { done: 3, current: null }
    const own = this.upload?.state === 'verifying' ? STEPS.indexOf('verifying') : 0
    const current = Math.max(own, STEPS.indexOf(this.step))
    return { done: current, current }
  }

  /** `tone` is `go`, `idle`, `wait`, `bad` or `done`; `words` a phrase, `detail` what else there is to say. */
  describe(now) {
    const far = this.length === null ? size(this.bytes) : `${size(this.bytes)} of ${size(this.length)}`
    if (this.status === 'complete') return { tone: 'done', words: 'Complete', detail: size(this.length ?? this.received) }
    if (this.status === 'expired') return { tone: 'bad', words: 'Expired', detail: 'Nobody went on with it, so it was removed.' }
    if (this.isOver) return { tone: 'bad', words: 'Failed', detail: this.error?.detail ?? this.message }
    const own = this.upload
    if (own?.held) {
      const whose = own.owner ? `It was begun as ${own.owner}. Give that credential, and it goes on.` : 'Give one, and it goes on.'
      return { tone: 'wait', words: 'Waits for a credential', detail: `${far}. ${whose}` }
    }
    if (own?.state === 'failed') return { tone: 'bad', words: 'Stopped', detail: own.error.message }
    if (own?.state === 'paused') return { tone: 'wait', words: 'Paused', detail: far }
    if (own?.state === 'waiting') return { tone: 'idle', words: 'Waiting for its turn', detail: size(this.length) }
    if (own?.retryAt && own.error) {
      const wait = Math.max(0, (own.retryAt - now) / 1000)
      return { tone: 'wait', words: own.error.message, detail: wait < 1 ? 'Trying again.' : `Trying again in ${duration(wait)}.` }
    }
    if (own?.state === 'verifying' && own.digest === null) {
      return { tone: 'go', words: 'Reading the file for its digest', detail: percent(own.hashed, own.size) }
    }
    if (this.status === 'verifying' || own?.state === 'verifying') {
      const words = this.step === 'publishing' ? 'Publishing' : 'Verifying'
      return { tone: 'go', words, detail: this.length === null ? '' : size(this.length) }
    }
    if (this.wanted) return { tone: 'wait', words: 'Waits for its file', detail: `${far}. Choose or drop it, and it goes on.` }
    if (this.record) return { tone: 'wait', words: 'Begun in this browser', detail: `${far}. Choose the file again, and it goes on.` }
    if (this.place(now) === 'rest') return { tone: 'wait', words: 'Nothing arrives', detail: far }
    const retries = this.retries > 0 ? `, ${this.retries} ${this.retries === 1 ? 'retry' : 'retries'}` : ''
    return { tone: 'go', words: 'Receiving', detail: far + retries }
  }

  /** `12.4 MiB/s, 8 s left`. */
  tempo() {
    if (this.pace < 1) return ''
    return this.left === null ? speed(this.pace) : `${speed(this.pace)}, ${duration(this.left)} left`
  }
}

/** All uploads that the page knows of. */
export class Board {
  constructor() {
    /** Items by the id of the upload, or by the object of one that has none yet. */
    this.items = new Map()
  }

  /** The item of each upload of this page. */
  #own = new WeakMap()

  item(id) {
    let item = this.items.get(id)
    if (!item) this.items.set(id, (item = new Item(id)))
    return item
  }

  /** The item of an upload of this page, under its id as soon as it has one. */
  own(upload) {
    const id = upload.url === null ? upload : idOf(upload.url)
    const before = this.#own.get(upload)
    if (before && before.id !== id) {
      this.items.delete(before.id)
      if (before.id === upload && !this.items.has(id)) {
        before.id = id
        this.items.set(id, before)
      } // else the server has told of it already, or the upload has begun anew
    }
    const item = this.item(id)
    this.#own.set(upload, item)
    item.upload = upload
    item.name ||= upload.file.name
    item.length = upload.size
    item.started ||= Date.now()
    if (upload.digest) item.digest = upload.digest
    if (upload.state === 'complete') {
      item.status = 'complete'
      item.changed = Math.max(item.changed, Date.now())
    }
    return item
  }

  remove(id) {
    this.items.delete(id)
  }

  /** To be called once a second: adds to the series of what is on its way. Bytes a second of all together. */
  sample(now) {
    let together = 0
    for (const item of this.items.values()) {
      together += item.pace
      if (item.place(now) === 'now') item.series.push(now / 1000, item.pace)
      else item.series.clear() // of the others, who can be ten thousand, no plot is seen
    }
    return together
  }

  /** Items in the order in which they are shown: `now` and `rest` by their beginning, `over` by their end, newest first; `next` as they were chosen. */
  sorted(now) {
    const found = { now: [], next: [], rest: [], over: [] }
    for (const item of this.items.values()) found[item.place(now)].push(item)
    const byBeginning = (a, b) => b.started - a.started
    found.now.sort(byBeginning)
    found.rest.sort(byBeginning)
    found.over.sort((a, b) => b.changed - a.changed)
    for (const item of found.over.splice(MOST_OVER)) this.items.delete(item.id)
    return found
  }
}

/** The id of an upload is the last part of its URL. */
export function idOf(url) {
  return new URL(url).pathname.split('/').pop()
}
