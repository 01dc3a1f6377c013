// What the server tells of uploads, written to the board.
//
// Rule of this file: what was missed is asked for, and what could not be asked for is as soon as there is a connection again;
// what cannot be told (L-RECOVER-2) is read anew. What the credential may not watch is read now and then, and what it may
// not read is not asked for. Where thousands of uploads go by, single ones are read a few at a time, and only those that are
// still to be seen.

import { Live } from './live.js'

const STATES = ['complete', 'failed', 'receiving', 'verifying']
const MOST_TOPICS = 128
/** Seconds between two looks at what cannot be watched, and until what could not be read is read again. */
const LOOK = 10
/** So many single uploads are read at a time. */
const READERS = 2
/** After so many tries in vain it is asked whether it is only live progress that does not get through. */
const TRIES = 3
/** With these an upload is none that may be seen. */
const GONE = new Set([401, 403, 404, 410])
/** Seconds after which the server has counted anew: it does so every other second. */
const COUNTED = 2.5

/**
 * Events: `change` when the board has changed; `over` with the item in `detail` when an upload is complete or has failed;
 * `read` when all that there is was read; `totals` with the figures of L-STATS-1 in `detail`; `link` when `live` or what is
 * watched has changed.
 */
export class Feed extends EventTarget {
  constructor(board, access, credential) {
    super()
    this.live = new Live(credential)
    /** Bytes a second of everybody's uploads, as the server sums them up; null if it has not done so just now. */
    this.sum = null
    /** Whether the server answers, and only live progress does not get through. */
    this.cut = false
    this.#board = board
    this.#access = access
    this.#credential = credential
    this.live.addEventListener('change', () => this.#heedLink())
    this.live.addEventListener('refused', () => this.#doubt())
    this.live.addEventListener('frame', ({ detail }) => this.#hear(detail))
  }

  #board
  #access
  #credential
  #unsure = new Set()
  /** Of these the state is to be read; of those it could not be. */
  #due = new Set()
  #unread = new Set()
  /** Items of which the history is to be read. */
  #fresh = new Set()
  #readers = 0
  #isLacking = false
  #looked = 0
  #counted = 0
  #stale = 0
  #summed = 0

  /** The credential is another one, or is known now: what only another one may see is seen no more. */
  become(who) {
    for (const item of [...this.#board.items.values()]) if (!item.upload) this.#board.remove(item.id)
    for (const each of [this.#unsure, this.#due, this.#unread, this.#fresh]) each.clear()
    this.cut = false
    this.live.follow(topics(who))
    if (who) this.#readAll()
    this.#tell('change')
    this.#tell('link')
  }

  /** Once a second. */
  tick(now) {
    if (now > this.#summed + 2500) this.sum = null
    if (this.#access.who && now > this.#looked + 1000 * LOOK) {
      this.#looked = now
      if (this.live.state === 'idle' || this.#isLacking) this.#readAll()
      else this.#readUnread()
    }
    if (now > this.#counted + 1000 * (this.#counted < this.#stale ? COUNTED : LOOK)) this.#readTotals()
  }

  async #readAll() {
    this.#looked = Date.now()
    if (this.#credential.upload !== null) await this.#readState(this.#credential.upload)
    else if (!(await this.#readLists())) return
    this.#tell('read')
  }

  #heedLink() {
    const { state, until, failures } = this.live
    if (state === 'live') this.cut = false
    this.#tell('link')
    if (state !== 'waiting' || until <= Date.now()) return
    this.#readLists() // only the live part may not get through
    if (failures >= TRIES) this.#doubt()
  }

  async #doubt() {
    const answers = await this.#access.check()
    this.cut = answers && this.live.state !== 'live' && this.live.state !== 'idle'
    this.#tell('link')
  }

  #hear(frame) {
    const { type, payload } = frame
    if (type === 'subscribed') {
      this.#unsure.clear()
      this.#readUnread()
      if (payload.recovered === true) return
      for (const item of this.#board.items.values()) if (item.id && !item.isOver) this.#unsure.add(item.id)
      this.#readAll()
    } else if (type === 'synced') {
      if (!payload.more) for (const id of this.#unsure) if (typeof id === 'string') this.#due.add(id)
      this.#unsure.clear()
      this.#read()
    } else if (type === 'sum' && this.live.topics.length === 1) {
      this.sum = Math.max(payload.speed ?? 0, 0)
      this.#summed = Date.now()
    } else if (type === 'status' || type === 'progress') {
      this.#heed(frame)
    }
  }

  #heed({ type, task_id: id, payload }) {
    this.#unsure.delete(id)
    if (payload.status === 'terminated') {
      if (this.#board.items.get(id)?.isOver) this.#board.remove(id)
      else this.#lose(id)
      this.#count()
      this.#tell('change')
      return
    }
    const known = this.#board.items.has(id)
    const item = this.#board.item(id)
    item.apply(payload)
    item.href ??= this.href(id)
    if (!known && !item.isOver) this.#fresh.add(item)
    if (type === 'status') {
      if (payload.event === 'complete' || payload.event === 'failed') {
        this.#tell('over', item)
        this.#due.add(id)
      }
      this.#count()
    }
    this.#read()
    this.#tell('change')
  }

  /** Where the file of an upload is to be had; null if it is not, with this credential. */
  href(id) {
    return this.#access.may('read') ? this.#credential.address(`files/${id}`).href : null
  }

  #apply(state) {
    const item = this.#board.item(state.id)
    item.applyState(state)
    item.href = this.href(state.id)
    item.wanted = this.#credential.upload === state.id && !item.upload && !item.isOver && this.#access.may('write')
  }

  #readUnread() {
    for (const id of this.#unread) this.#due.add(id)
    this.#unread.clear()
    this.#read()
  }

  async #read() {
    if (this.#readers === READERS) return
    this.#readers += 1
    const { items } = this.#board
    while (this.#due.size + this.#fresh.size > 0) {
      for (const id of this.#due) {
        this.#due.delete(id)
        if (items.has(id)) await this.#readState(id)
      }
      for (const item of this.#fresh) {
        this.#fresh.delete(item)
        if (!item.isOver && items.get(item.id) === item) await this.#readHistory(item)
      }
    }
    this.#readers -= 1
  }

  async #readState(id) {
    try {
      this.#apply(await this.#access.read(`api/uploads/${id}?limit=1`))
      this.#unread.delete(id)
    } catch (error) {
      if (!GONE.has(error.status)) this.#unread.add(id)
      else this.#lose(id)
    }
    this.#tell('change')
  }

  /** There is nothing of it at the server, or nothing that may be seen. It stays in sight where it can be begun anew from here. */
  #lose(id) {
    const item = this.#board.items.get(id)
    if (item?.record) item.received = 0
    else if (!item?.upload) this.#board.remove(id)
  }

  /** False if some of it could not be read. */
  async #readLists() {
    this.#readTotals()
    if (this.#access.who?.signature || !(this.#access.may('read') || this.#access.may('watch'))) return true
    const asked = STATES.map((state) => this.#access.read(`api/uploads?state=${state}&limit=40`))
    const pages = await Promise.allSettled(asked)
    for (const { value } of pages) value?.uploads.forEach((state) => this.#apply(state))
    this.#tell('change')
    this.#isLacking = pages.some(({ status }) => status === 'rejected')
    return !this.#isLacking
  }

  async #readHistory(item) {
    const { samples } = await this.#access.read(`api/uploads/${item.id}/history`).catch(() => ({ samples: [] }))
    const kept = item.series.points
    item.series.points = []
    for (const sample of samples) item.series.push(Date.parse(sample.timestamp) / 1000, sample.speed ?? 0)
    for (const [when, value] of kept) item.series.push(when, value)
  }

  async #readTotals() {
    this.#counted = Date.now()
    if (!this.#access.may('watch') || this.#access.who.signature) return
    const stats = await this.#access.read('api/stats').catch(() => null)
    if (stats !== null) this.#tell('totals', stats)
  }

  /** There is something else to count. */
  #count() {
    this.#stale = Date.now() + 1000 * COUNTED
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }))
  }
}

/** All that may be watched, in as few topics as there can be: as `own_topics` of the client has it. */
export function topics(who) {
  if (!who?.scopes.includes('watch')) return []
  if (who.signature) return who.signature.upload ? [`upload:${who.signature.upload}`] : []
  if (who.scopes.includes('operate')) return ['all']
  const owner = who.owner === null ? [] : [`owner:${who.owner}`]
  return [...owner, ...who.projects.map((project) => `project:${project}`)].slice(0, MOST_TOPICS)
}
