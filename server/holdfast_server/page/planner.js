// What to send next, how large, and how long to wait after a failure.
//
// Rule of this file: decisions without any I/O. Time is an argument (seconds of a clock that never goes back), and so is
// chance (a number in [0, 1)). The server is believed more than what was answered before: see `sync`.

import { Ranges } from './ranges.js'

export const KIB = 1024
export const MIB = 1024 * 1024

/** Seconds that a chunk should take: long beside a round trip, short beside the patience of somebody who looks on. */
const TARGET = 2
const SMALLEST = 256 * KIB
/** The largest chunk: with six connections 48 MiB are in memory, however large the files. */
const LARGEST = 8 * MIB
const START = MIB
/** Where nobody takes as little as this, size is not what is wrong. */
const LEAST = 64 * KIB

/** Full jitter: a random part of `base * 2^i` seconds, of at most `cap`; a Retry-After is a lower bound, up to ten minutes. */
export function backoff(failures, random, retryAfter = null, { base = 0.5, cap = 20 } = {}) {
  const jitter = random * Math.min(base * 2 ** Math.min(failures - 1, 30), cap)
  if (retryAfter === null) return jitter
  return Math.min(Math.max(retryAfter, 0), 600) + Math.min(jitter, 0.2 * retryAfter + base)
}

/** How one upload is cut up. Sizes in bytes; a chunk is `{start, end}`. */
export class Plan {
  /** @param {{length: number, granule: number, maxChunk: number, chunkSize?: number | null}} what the server announced */
  constructor({ length, granule, maxChunk, chunkSize = null }) {
    this.length = length
    this.stored = new Ranges()
    this.flying = new Set()
    this.#granule = granule
    this.#most = Math.min(maxChunk, chunkSize ?? LARGEST)
    this.#size = chunkSize ?? START
    this.#fixed = chunkSize !== null
  }

  #granule
  #most
  #size
  #fixed
  #todo = new Ranges()
  #more = true // nothing is known before the first answer
  #since = null

  /** Bytes that the server has, as far as it has said. */
  get received() {
    return this.stored.size
  }

  /** Nothing to hand out and nothing on its way, but the server has more to tell. */
  get asks() {
    return this.#more && this.#todo.count === 0 && this.flying.size === 0
  }

  get done() {
    return !this.#more && this.#todo.count === 0 && this.flying.size === 0
  }

  /** The next chunk, or null if there is none now. `lanes`: how many connections share what is left. */
  next(lanes) {
    const [first] = this.#todo
    if (first === undefined) return null
    const [start, stop] = first
    // Towards the end chunks get smaller, so that connections come to their end together.
    const share = Math.max(START, Math.ceil(this.#todo.size / (2 * lanes)))
    const size = this.#fixed ? this.#size : Math.min(this.#size, share)
    let end = Math.min(start + this.#fit(size), stop)
    // A rest that is small goes with it, and not by itself.
    if (!this.#fixed && stop - end < (end - start) / 2 && stop - start <= this.#most) end = stop
    const chunk = { start, end }
    this.#todo.remove(chunk.start, chunk.end)
    this.flying.add(chunk)
    return chunk
  }

  /** The server has it. */
  accepted(chunk, seconds) {
    this.flying.delete(chunk)
    this.stored.add(chunk.start, chunk.end)
    this.#since?.add(chunk.start, chunk.end)
    this.#todo.remove(chunk.start, chunk.end)
    const size = chunk.end - chunk.start
    if (size < this.#size / 2) return // the short end of a file takes as long as a small chunk would
    const wanted = (size + (size * TARGET) / Math.max(seconds, 0.001)) / 2
    this.#resize(Math.min(Math.max(wanted, size / 2), 2 * size))
  }

  /** It was not stored, or nobody knows. `broken`: the connection broke under it, so smaller ones have a better chance. */
  failed(chunk, { broken = false } = {}) {
    this.flying.delete(chunk)
    this.#todo.add(chunk.start, chunk.end)
    for (const [start, end] of this.stored) this.#todo.remove(start, end)
    this.#align()
    if (broken) this.#resize(this.#size / 2)
  }

  /** It is larger than is taken (413). `most` is what the server takes, if it said so. False if there is no smaller one. */
  tooLarge(chunk, most = null) {
    const size = chunk.end - chunk.start
    const next = most !== null && most < size ? most : Math.floor(size / 2)
    if (next < Math.max(this.#granule, LEAST)) return false
    this.#most = Math.min(this.#most, next)
    this.#size = Math.min(this.#size, this.#most)
    return true
  }

  /** A question for what is missing leaves now: chunks that are accepted before its answer comes are not asked for again. */
  asking() {
    this.#since = new Ranges()
  }

  /** The answer: `ranges` are missing, and others behind them if `more`. What is on its way is left alone. */
  sync({ ranges, more }) {
    const missing = new Ranges(ranges)
    const known = more ? ranges[ranges.length - 1][1] : this.length
    this.stored.remove(0, known)
    for (const [start, end] of missing.gaps(known)) this.stored.add(start, end)
    for (const [start, end] of this.#since ?? []) {
      this.stored.add(start, end)
      missing.remove(start, end)
    }
    this.#since = null
    this.#todo = missing
    this.#more = more
    this.#align()
  }

  /** Widened to the granule, which the prefix of a sequential client need not end on (C-MIX-3); a chunk may overlap it. */
  #align() {
    const granule = this.#granule
    const wide = new Ranges()
    for (const [start, end] of this.#todo) {
      const first = Math.floor(start / granule) * granule
      wide.add(first, Math.min(Math.ceil(end / granule) * granule, this.length))
    }
    for (const { start, end } of this.flying) wide.remove(start, end)
    this.#todo = wide
  }

  #resize(size) {
    if (this.#fixed) return
    this.#size = Math.min(Math.max(size, SMALLEST), LARGEST)
  }

  #fit(size) {
    const granule = this.#granule
    const most = Math.max(Math.floor(this.#most / granule), 1) * granule
    return Math.min(Math.max(Math.ceil(size / granule), 1) * granule, most)
  }
}

/** How many connections all uploads to a server may use at once, and from when on, after it asked for less (429, 503). */
export class Throttle {
  constructor(most) {
    this.most = most
    this.limit = most
    this.until = 0
    this.#good = 0
  }

  #good

  /** `retryAfter` in seconds, or null. */
  slower(now, random, retryAfter) {
    if (retryAfter !== null) this.until = Math.max(this.until, now + Math.min(retryAfter, 600) * (1 + 0.2 * random))
    this.limit = Math.max(1, Math.floor(this.limit / 2))
    this.#good = 0
  }

  /** A chunk was taken: after 16 of them one connection more is tried. */
  accepted() {
    if (this.limit === this.most || ++this.#good < 16) return
    this.limit += 1
    this.#good = 0
  }
}

/** Bytes a second, smoothed: what moved `halfLife` seconds ago counts half. */
export class Meter {
  constructor(now, halfLife = 3) {
    this.#halfLife = halfLife
    this.#began = this.#then = now
  }

  #halfLife
  #began
  #then
  #rate = 0

  add(bytes, now) {
    this.#decay(now)
    this.#rate += (bytes * Math.LN2) / this.#halfLife
  }

  speed(now) {
    this.#decay(now)
    // A meter that has just begun has seen only a part; what fills the buffers at first is no speed.
    return this.#rate / Math.max(1 - 2 ** (-(now - this.#began) / this.#halfLife), 0.2)
  }

  #decay(now) {
    this.#rate *= 2 ** (-Math.max(now - this.#then, 0) / this.#halfLife)
    this.#then = now
  }
}
