// One file on its way to a server: in verified chunks over several connections, or, where the server does not offer that,
// in one sequence as tus 1.0.0 has it (P-OFFER-1).
//
//     import { Upload } from './page/upload.js'
//     const upload = new Upload(file, { endpoint: '/files' })
//     upload.addEventListener('change', () => console.log(upload.state, upload.received))
//     const { url, digest } = await upload.start()
//
// Rule of this file: what is missing is asked (remote.js) after every failure and at every start; the plan decides what is
// sent; every wait can be ended. docs/page.md tells how to use it.

import { Connections, seconds, sleep } from './connections.js'
import { mistake, UploadError } from './errors.js'
import { hex } from './fields.js'
import { Hasher, hashChunk } from './hashing.js'
import { backoff, Meter, MIB, Plan } from './planner.js'
import { Remote } from './remote.js'
import { RequestError } from './request.js'

export { Connections, UploadError }

/** Files of up to so many bytes need no worker of their own. */
const SMALL = 8 * MIB
const MOST_MISMATCHES = 5
/** How tus cuts a file up: as it likes. */
const ONE_SEQUENCE = { granule: 1, maxChunk: Number.MAX_SAFE_INTEGER }

/**
 * Events: `change` when something that can be seen has changed, at most ten times a second but for changes of `state`;
 * `created` when `url` is known, and the upload can be gone on with from there.
 */
export class Upload extends EventTarget {
  /**
   * @param {File | Blob} file
   * @param {object} options
   * @param {string | URL} options.endpoint where uploads are created, `/files`
   * @param {string | null} [options.url] an upload that was begun: it is gone on with
   * @param {Record<string, string>} [options.metadata] beside `filename` and `filetype`
   * @param {() => Record<string, string>} [options.headers] for every request, `Authorization` for one
   * @param {Connections} [options.connections] shared with other uploads
   * @param {number | null} [options.chunkSize] bytes; without it, 256 KiB to 8 MiB, by how long a chunk takes
   * @param {number} [options.patience] seconds without any progress after which it gives up, an hour if not given
   */
  constructor(file, { endpoint, url = null, metadata = {}, headers = () => ({}), connections, chunkSize, patience = 3600 }) {
    super()
    this.file = file
    this.size = file.size
    /** `waiting`, `sending`, `verifying`, `complete`, `paused`, `failed`, `cancelled`. */
    this.state = 'waiting'
    /** What went wrong: while `sending` it is tried again, at `retryAt` (milliseconds since 1970). */
    this.error = null
    this.retryAt = null
    /** The SHA-256 of the whole file in hexadecimal, once it is known. */
    this.digest = null
    /** Bytes of the file that were hashed for it. */
    this.hashed = 0
    this.retries = 0
    const place = new URL(endpoint, globalThis.location?.href)
    this.#remote = new Remote({ endpoint: place, url: url === null ? null : new URL(url, place).href, size: file.size, headers })
    this.#metadata = metadata
    this.#connections = connections ?? new Connections()
    this.#chunkSize = chunkSize ?? null
    this.#patience = patience
    this.#meter = new Meter(seconds())
  }

  #remote
  #metadata
  #connections
  #chunkSize
  #patience
  #meter
  #plan = null
  #run = null
  #whole = null
  #hasher = null
  #failures = 0
  #progressed = 0
  #sync = null
  #wake = null
  #told = 0
  #telling = null

  /** Where uploads are created. */
  get endpoint() {
    return this.#remote.endpoint
  }

  set endpoint(place) {
    this.#remote.endpoint = place
  }

  /** Where the upload is; null as long as it was not created. */
  get url() {
    return this.#remote.url
  }

  set url(url) {
    this.#remote.url = url
  }

  /** Bytes that the server has stored. */
  get received() {
    return this.state === 'complete' ? this.size : (this.#plan?.received ?? 0)
  }

  /** The ranges that the server has stored: `[start, end)` in turn. */
  get ranges() {
    return this.#plan?.stored ?? []
  }

  /** Chunks on their way: `{start, end, sent}`. */
  get flying() {
    return this.#plan?.flying ?? []
  }

  /** Bytes a second that go out, smoothed. */
  get speed() {
    return this.#meter.speed(seconds())
  }

  /** Whether `pause` would stop something. */
  get running() {
    return this.#run !== null
  }

  /**
   * Begin, or go on. Resolves when the server has verified and published the file. Throws an UploadError when it stops
   * before that; `pause` and `cancel` are such stops too. A server that only speaks tus verifies no digest: it is null.
   * @returns {Promise<{url: string, digest: string | null, size: number}>}
   */
  async start() {
    if (this.#run) throw new Error('The upload runs already.')
    if (this.state === 'cancelled') throw mistake('cancelled')
    const run = (this.#run = new AbortController())
    if (this.error?.status === 404 || this.error?.status === 410) this.url = this.#plan = null // it begins anew
    this.#failures = 0
    this.#progressed = seconds()
    this.#become('sending')
    const wake = () => this.#wake?.()
    globalThis.addEventListener?.('online', wake)
    try {
      await this.#carryOut(run.signal)
      this.#become('complete')
      return { url: this.url, digest: this.digest, size: this.size }
    } catch (thrown) {
      const error = thrown instanceof UploadError ? thrown : new UploadError('unexpected', String(thrown?.message ?? thrown))
      run.abort(error) // a lane that failed ends the others
      if (error.code === 'given-up') this.url = this.#plan = null // nothing of it was stored: with another link it begins anew
      if (error.code !== 'paused' && error.code !== 'cancelled') this.#become('failed', error)
      throw error
    } finally {
      globalThis.removeEventListener?.('online', wake)
      if (this.state !== 'paused') this.#endHashing()
      this.#run = null
    }
  }

  /** Stop for now. What the server has acknowledged stays there; `start` goes on. */
  pause() {
    if (!this.#run) return
    this.#become('paused')
    this.#run.abort(mistake('paused'))
  }

  /** Stop for good, and remove from the server what was stored. Resolves when the server has answered. */
  async cancel() {
    this.#become('cancelled')
    this.#run?.abort(mistake('cancelled'))
    this.#endHashing()
    if (this.url !== null) await this.#remote.remove()
  }

  async #carryOut(signal) {
    if (this.url !== null) await this.#again(signal, () => this.#ask(signal))
    if (this.url === null) await this.#again(signal, () => this.#create(signal))
    if (this.#remote.offer === null) return this.#sendAll(signal, 1) // the last byte completes it
    this.#digestOfWhole().catch(() => {}) // it is waited for at the end
    do {
      await this.#sendAll(signal, this.#connections.throttle.most)
      this.#become('verifying')
    } while (!(await this.#again(signal, () => this.#complete(signal))))
  }

  async #sendAll(signal, lanes) {
    const plan = this.#plan
    this.#become('sending')
    while (!plan.done) {
      if (plan.asks) await this.#again(signal, () => this.#synchronise(signal))
      await Promise.all(Array.from({ length: lanes }, () => this.#lane(signal)))
    }
  }

  async #create(signal) {
    const metadata = { filename: this.file.name ?? 'upload', filetype: this.file.type, ...this.#metadata }
    const missing = await this.#remote.create(metadata, signal)
    this.#planFor(missing)
    this.dispatchEvent(new Event('created'))
    this.#change()
  }

  #planFor(missing) {
    const { offer } = this.#remote
    this.#plan ??= new Plan({ length: this.size, chunkSize: this.#chunkSize, ...(offer ?? ONE_SEQUENCE) })
    this.#plan.sync(missing)
  }

  /** Asks what is missing. The upload is created anew if the server knows nothing of it any more. */
  async #ask(signal) {
    this.#plan?.asking()
    const missing = await this.#remote.ask(signal, this.#plan === null)
    if (missing === null) {
      this.url = null
      return
    }
    this.#planFor(missing)
    this.#change()
  }

  /** One question at a time, whoever asks. */
  #synchronise(signal) {
    this.#sync ??= this.#ask(signal).finally(() => (this.#sync = null))
    return this.#sync
  }

  /** One connection: sends chunks until there are none. After a failure the server is asked before anything else (P-RETRY-1). */
  async #lane(signal) {
    const step = async (first) => {
      if (!first) await this.#synchronise(signal)
      return this.#connections.use(signal, () => this.#send(signal))
    }
    while (await this.#again(signal, step));
  }

  /** Sends the next chunk. False if there is none. */
  async #send(signal) {
    const plan = this.#plan
    const chunk = plan.next(this.#connections.throttle.limit)
    if (chunk === null) return false
    chunk.sent = 0
    try {
      await this.#carry(chunk, signal)
    } catch (error) {
      plan.failed(chunk, { broken: error instanceof RequestError })
      throw error
    }
    this.#connections.throttle.accepted()
    this.#failures = 0
    this.#progressed = seconds()
    this.error = this.retryAt = null
    this.#change()
    return true
  }

  async #carry(chunk, signal) {
    const blob = this.file.slice(chunk.start, chunk.end)
    const digest = this.#remote.offer === null ? null : await hashChunk(blob)
    signal.throwIfAborted()
    const began = seconds()
    const sent = (bytes) => {
      bytes = Math.min(bytes, blob.size)
      this.#meter.add(Math.max(0, bytes - chunk.sent), seconds())
      chunk.sent = bytes
      this.#change()
    }
    let missing
    try {
      missing = await this.#remote.send(chunk.start, blob, digest, signal, sent)
    } catch (error) {
      if (!error.isChunkTooLarge || !this.#plan.tooLarge(chunk, error.problem?.['max-chunk'] ?? null)) throw error
      this.#plan.failed(chunk) // it is cut anew, in smaller ones
      return
    }
    sent(blob.size)
    this.#plan.accepted(chunk, seconds() - began)
    if (missing !== null) this.#plan.sync(missing)
  }

  /** Asks the server to verify and publish. True when it has. */
  async #complete(signal) {
    const digest = await this.#digestOfWhole()
    this.digest = hex(digest)
    signal.throwIfAborted()
    if (await this.#remote.complete(digest, signal)) return true
    await this.#ask(signal)
    return false
  }

  /** Carries `step` out, again and again with growing waits, until it succeeds or there is no use in it. */
  async #again(signal, step) {
    for (let first = true; ; first = false) {
      try {
        return await step(first)
      } catch (thrown) {
        signal.throwIfAborted()
        const error = thrown instanceof RequestError ? mistake(thrown.stalled ? 'stalled' : 'unreachable') : thrown
        if (!(error instanceof UploadError) || error.final) throw error
        if (error.code === 'digest-mismatch' && this.#failures >= MOST_MISMATCHES) throw error
        if (seconds() - this.#progressed > this.#patience) throw error
        if ((error.status === 429 && error.code !== 'too-many-uploads') || error.status === 503) {
          this.#connections.throttle.slower(seconds(), Math.random(), error.retryAfter)
        }
        // Connections that break together wait together, and are one failure.
        if (this.retryAt === null || this.retryAt < Date.now()) {
          this.#failures += 1
          this.retries += 1
          this.retryAt = Date.now() + 1000 * backoff(this.#failures, Math.random(), error.retryAfter)
        }
        this.error = error
        this.#change()
        await this.#rest((this.retryAt - Date.now()) / 1000, signal)
      }
    }
  }

  /** Waits, but not longer than until the browser says that it is online again. */
  async #rest(wait, signal) {
    const woken = new AbortController()
    this.#wake = () => woken.abort()
    try {
      await sleep(wait, AbortSignal.any([signal, woken.signal]))
    } catch {
      signal.throwIfAborted()
    }
  }

  /** The digest of the whole file: begun once, and anew if it has failed. */
  #digestOfWhole() {
    this.#whole ??= this.#hashWhole().catch((error) => {
      this.#whole = null
      throw error
    })
    return this.#whole
  }

  #hashWhole() {
    if (this.size <= SMALL) return hashChunk(this.file)
    const hasher = (this.#hasher = new Hasher())
    return hasher
      .hash(this.file, (read) => {
        this.hashed = read
        this.#change()
      })
      .finally(() => hasher.end())
  }

  #endHashing() {
    this.#hasher?.end()
    this.#hasher = null
    this.#whole = null
    this.hashed = 0
  }

  #become(state, error = null) {
    this.state = state
    this.error = error
    this.retryAt = null
    this.#told = 0
    this.#change()
  }

  #change() {
    const wait = this.#told + 100 - performance.now()
    if (wait <= 0) {
      clearTimeout(this.#telling)
      this.#telling = null
      this.#told = performance.now()
      this.dispatchEvent(new Event('change'))
    } else {
      this.#telling ??= setTimeout(() => {
        this.#telling = null
        this.#change()
      }, wait)
    }
  }
}
