// One file on its way to a Holdfast server, in verified chunks over several connections.
//
//     import { Upload } from './page/upload.js'
//     const upload = new Upload(file, { endpoint: '/files' })
//     upload.addEventListener('change', () => console.log(upload.state, upload.received))
//     const { url, digest } = await upload.start()
//
// Rule of this file: what is missing is what the server says (HEAD), after every failure and at every start; the plan
// decides what is sent; every wait can be ended. docs/page.md tells how to use it.

import * as fields from './fields.js'
import { backoff, Meter, MIB, Plan, Throttle } from './planner.js'
import { request, RequestError } from './request.js'

const ALGORITHM = 'sha-256'
const CONNECTIONS = 4
const VERSION = { 'Tus-Resumable': '1.0.0' }
const EMPTY = new Blob([])
/** Files of up to so many bytes need no worker of their own. */
const SMALL = 8 * MIB

/** Why an upload has stopped. `code`: of the server's problem document (protocol.md, section 5), or one of `MESSAGES`. */
export class UploadError extends Error {
  constructor(code, message, { status = 0, problem = null, retryAfter = null } = {}) {
    super(message)
    this.code = code
    this.status = status
    this.problem = problem
    this.retryAfter = retryAfter
  }

  /** Whether there is no use in trying again without somebody who does something about it. */
  get final() {
    if (this.code === 'unreachable' || this.code === 'stalled') return false
    if (this.status === 0) return true
    return this.status < 500 && this.status !== 408 && this.status !== 429 && !PASSING.has(this.code)
  }
}

const MESSAGES = {
  paused: 'The upload is paused.',
  cancelled: 'The upload was cancelled.',
  unreachable: 'The server cannot be reached.',
  stalled: 'Nothing moved on the connection.',
  unreadable: 'The file cannot be read any more: it was moved, changed or removed. Choose it again.',
  'other-file': 'This file has another size than the one that was begun.',
  'not-offered': 'This server does not take parallel chunks.',
  'digest-differs': 'The server has stored something else than this file. Begin anew.',
  unauthorized: 'The server asks for a credential.',
  forbidden: 'The credential does not allow this.',
}

/** Refusals that another try may not meet again. */
const PASSING = new Set(['fenced', 'digest-mismatch', 'request-timeout', 'chunk-too-large', 'length-required'])
const MOST_MISMATCHES = 5

function mistake(code, more) {
  return new UploadError(code, MESSAGES[code], more)
}

/** Connections that several uploads share. Give the same one to all uploads to a server; a browser has six to an origin. */
export class Connections {
  constructor(most = CONNECTIONS) {
    this.throttle = new Throttle(most)
  }

  #busy = 0
  #queue = []

  /** Carries `task` out when it is its turn. */
  async use(signal, task) {
    while (this.#busy >= this.throttle.limit) await this.#turn(signal)
    this.#busy += 1
    try {
      const wait = this.throttle.until - seconds()
      if (wait > 0) await sleep(wait, signal)
      return await task()
    } finally {
      this.#busy -= 1
      this.#queue.shift()?.()
    }
  }

  #turn(signal) {
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#queue = this.#queue.filter((each) => each !== enter)
        reject(signal.reason)
      }
      const enter = () => {
        signal.removeEventListener('abort', leave)
        resolve()
      }
      signal.throwIfAborted()
      signal.addEventListener('abort', leave, { once: true })
      this.#queue.push(enter)
    })
  }
}

/** Reads and hashes beside the page. One is shared for chunks; a large file has one of its own for its digest. */
class Hasher {
  #worker = new Worker(new URL('hasher.js', import.meta.url), { type: 'module' })
  #asked = new Map()
  #last = 0

  constructor() {
    this.#worker.onmessage = ({ data: { id, digest, error, read } }) => {
      const asked = this.#asked.get(id)
      if (read !== undefined) {
        asked?.tell?.(read)
        return
      }
      this.#asked.delete(id)
      if (digest) asked?.resolve(digest)
      else asked?.reject(mistake('unreadable'))
    }
    this.#worker.onerror = (event) => {
      for (const { reject } of this.#asked.values()) reject(new Error(event.message || 'The worker did not start.'))
      this.#asked.clear()
    }
  }

  hash(blob, tell) {
    return new Promise((resolve, reject) => {
      const id = ++this.#last
      this.#asked.set(id, { resolve, reject, tell })
      this.#worker.postMessage({ id, blob })
    })
  }

  end() {
    this.#worker.terminate()
  }
}

let shared = null
const hashChunk = (blob) => (shared ??= new Hasher()).hash(blob)

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
    this.endpoint = new URL(endpoint, globalThis.location?.href)
    this.url = url === null ? null : new URL(url, this.endpoint).href
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
    this.#metadata = metadata
    this.#headers = headers
    this.#connections = connections ?? new Connections()
    this.#chunkSize = chunkSize ?? null
    this.#patience = patience
    this.#meter = new Meter(seconds())
  }

  #metadata
  #headers
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
   * before that; `pause` and `cancel` are such stops too.
   * @returns {Promise<{url: string, digest: string, size: number}>}
   */
  async start() {
    if (this.#run) throw new Error('The upload runs already.')
    if (this.state === 'cancelled') throw mistake('cancelled')
    const run = (this.#run = new AbortController())
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
    if (this.url === null) return
    const answer = await this.#request('DELETE', this.url)
    if (answer.status >= 400 && answer.status !== 404 && answer.status !== 410) throw refusal(answer)
  }

  async #carryOut(signal) {
    if (this.url !== null) await this.#again(signal, () => this.#ask(signal))
    if (this.url === null) await this.#again(signal, () => this.#create(signal))
    this.#whole ??= this.#hashWhole()
    this.#whole.catch(() => {}) // it is waited for at the end
    const plan = this.#plan
    do {
      this.#become('sending')
      while (!plan.done) {
        if (plan.asks) await this.#again(signal, () => this.#synchronise(signal))
        await Promise.all(Array.from({ length: this.#connections.throttle.most }, () => this.#lane(signal)))
      }
      this.#become('verifying')
    } while (!(await this.#again(signal, () => this.#complete(signal))))
  }

  /** Creates the upload (P-CREATE-1). */
  async #create(signal) {
    const metadata = { filename: this.file.name ?? 'upload', filetype: this.file.type, ...this.#metadata }
    const answer = await this.#request('POST', this.endpoint, signal, {
      ...VERSION,
      'Upload-Length': String(this.size),
      'Upload-Parallel': '?1',
      'Upload-Metadata': fields.formatMetadata(metadata),
      'Want-Repr-Digest': `${ALGORITHM}=10`,
    })
    if (answer.status !== 201) throw refusal(answer)
    const location = answer.header('Location')
    const offer = fields.parseParallel(answer.header('Upload-Parallel'))
    if (location === null || (offer === null && this.size > 0)) throw mistake('not-offered')
    this.url = new URL(location, answer.url).href
    this.#plan = this.#planFor(offer)
    this.#plan.sync({ ranges: this.size ? [[0, this.size]] : [], more: false })
    this.dispatchEvent(new Event('created'))
    this.#change()
  }

  #planFor(offer) {
    return new Plan({ length: this.size, chunkSize: this.#chunkSize, ...(offer ?? { granule: 1, maxChunk: 1 }) })
  }

  /** Asks what is missing (P-STATE-1). The upload is created anew if the server knows nothing of it any more. */
  async #ask(signal) {
    this.#plan?.asking()
    const answer = await this.#request('HEAD', this.url, signal)
    if ((answer.status === 404 || answer.status === 410) && this.#plan === null) {
      this.url = null
      return
    }
    if (answer.status !== 200) throw refusal(answer)
    if (fields.integer(answer.header('Upload-Length')) !== this.size) throw mistake('other-file')
    const state = answer.header('Upload-State')
    if (state === 'failed') throw new UploadError('upload-failed', 'The server has given this upload up. Cancel it and begin anew.')
    const missing = fields.parseMissing(answer.header('Upload-Missing'))
    const offer = fields.parseParallel(answer.header('Upload-Parallel'))
    if (this.#plan === null && offer === null && state === 'receiving') throw mistake('not-offered')
    this.#plan ??= this.#planFor(offer)
    if (missing === null) throw new UploadError('unreachable', 'The answer cannot be understood; something in between has changed it.')
    this.#plan.sync(missing)
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
    const digest = await hashChunk(blob)
    signal.throwIfAborted()
    const began = seconds()
    const headers = {
      'Content-Type': fields.CHUNK,
      'Upload-Offset': String(chunk.start),
      'Content-Digest': fields.formatDigest(ALGORITHM, digest),
    }
    const sent = (bytes) => {
      bytes = Math.min(bytes, blob.size)
      this.#meter.add(Math.max(0, bytes - chunk.sent), seconds())
      chunk.sent = bytes
      this.#change()
    }
    const answer = await this.#request('PATCH', this.url, signal, headers, blob, sent)
    if (answer.status === 204) {
      sent(blob.size)
      this.#plan.accepted(chunk, seconds() - began)
      return
    }
    const error = refusal(answer)
    if (answer.status !== 413 || !this.#plan.tooLarge(chunk, error.problem?.['max-chunk'] ?? null)) throw error
    this.#plan.failed(chunk) // it is cut anew, in smaller ones
  }

  /** Asks the server to verify and publish (P-COMPLETE-1). True when it has. */
  async #complete(signal) {
    const digest = await this.#whole
    this.digest = fields.hex(digest)
    signal.throwIfAborted()
    const headers = {
      'Content-Type': fields.CHUNK,
      'Upload-Complete': '?1',
      'Upload-Digest': fields.formatDigest(ALGORITHM, digest),
    }
    for (;;) {
      const answer = await this.#request('PATCH', this.url, signal, headers, EMPTY)
      if (answer.status === 204) {
        const stored = fields.parseDigest(answer.header('Repr-Digest'), ALGORITHM)
        if (stored !== null && fields.hex(stored) !== this.digest) throw mistake('digest-differs')
        return true
      }
      if (answer.status === 409 && refusal(answer).code === 'missing-ranges') {
        await this.#ask(signal)
        return false
      }
      if (answer.status !== 202) throw refusal(answer)
      await sleep(fields.parseRetryAfter(answer.header('Retry-After'), Date.now()) ?? 1, signal)
    }
  }

  async #request(method, url, signal, headers = {}, body = null, sent) {
    return request(method, url, { headers: { ...this.#headers(), ...headers }, body, signal, sent })
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
        if (error.status === 429 || error.status === 503) {
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

  #hashWhole() {
    if (this.size <= SMALL) return hashChunk(this.file)
    this.#hasher = new Hasher()
    return this.#hasher
      .hash(this.file, (read) => {
        this.hashed = read
        this.#change()
      })
      .finally(() => this.#hasher?.end())
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

/** An answer that is no success, as an error: in the server's own words where it has some. */
function refusal(answer) {
  const problem = answer.json()
  const retryAfter = fields.parseRetryAfter(answer.header('Retry-After'), Date.now())
  const named = { 401: 'unauthorized', 403: 'forbidden', 404: 'not-found', 410: 'gone' }[answer.status]
  const code = problem?.code ?? named ?? `status-${answer.status}`
  const message = problem?.detail ?? MESSAGES[named] ?? `The server answered ${answer.status}.`
  return new UploadError(code, message, { status: answer.status, problem, retryAfter })
}

function seconds() {
  return performance.now() / 1000
}

function sleep(wait, signal) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted()
    const leave = () => {
      clearTimeout(timer)
      reject(signal.reason)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', leave)
      resolve()
    }, wait * 1000)
    signal.addEventListener('abort', leave, { once: true })
  })
}
