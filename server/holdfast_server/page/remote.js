// One upload at a server: what is asked of it, and what the answers mean.
//
// Rule of this file: what is missing is what the server says, and nothing is asked twice: whether another try is worth it is
// for whoever calls. What only one of the dialects does stands at `offer === null`, which is tus.

import { sleep } from './connections.js'
import { mistake, refusal } from './errors.js'
import * as fields from './fields.js'
import { request } from './request.js'

const ALGORITHM = 'sha-256'
/** Any other answer to DELETE is that of something else, as a page to log in at is, and the upload is where it was. */
const REMOVED = new Set([204, 404, 410])
const VERSION = { 'Tus-Resumable': '1.0.0' }
const EMPTY = new Blob([])

/** Ranges are `{ranges: [[start, end], ...], more}`, as `Plan.sync` takes them. Every method throws UploadErrors and RequestErrors. */
export class Remote {
  /** @param {{endpoint: URL, url: string | null, size: number, headers: () => Record<string, string>}} of `url` if it was begun */
  constructor({ endpoint, url, size, headers }) {
    this.endpoint = endpoint
    this.url = url
    /** What is offered for parallel chunks; null: the server speaks tus. */
    this.offer = null
    this.#size = size
    this.#headers = headers
  }

  #size
  #headers

  /** Creates the upload (P-CREATE-1), as one of tus if nothing else is offered. Resolves with what is missing: all. */
  async create(metadata, signal) {
    const answer = await this.#request('POST', this.endpoint, signal, {
      ...VERSION,
      'Upload-Length': String(this.#size),
      'Upload-Parallel': '?1',
      'Upload-Metadata': fields.formatMetadata(metadata),
      'Want-Repr-Digest': `${ALGORITHM}=10`,
    })
    if (answer.status === 404 && answer.json() === null) throw mistake('not-here')
    if (answer.status !== 201) throw refusal(answer)
    const location = answer.header('Location')
    if (location === null) throw mistake('no-location')
    this.url = new URL(location, answer.url).href
    this.#heed(answer)
    return this.#from(0)
  }

  /** Asks what is missing (P-STATE-1). `first`: nobody has asked before; null then if the server knows nothing of it any more. */
  async ask(signal, first) {
    const answer = await this.#request('HEAD', this.url, signal)
    if (first && (answer.status === 404 || answer.status === 410)) return null
    if (answer.status !== 200 && answer.status !== 204) throw refusal(await this.#explained(answer, signal))
    const length = fields.integer(answer.header('Upload-Length'))
    if (length === null) throw mistake('not-understood')
    if (length !== this.#size) throw mistake('other-file')
    if (answer.header('Upload-State') === 'failed') throw mistake('upload-failed')
    if (first) this.#heed(answer)
    const missing = this.#missing(answer)
    if (missing === null) throw mistake('not-understood')
    return missing
  }

  /** Sends bytes. `digest` is their SHA-256, if there is an offer. Resolves with what is missing now, null if it was not said. */
  async send(start, blob, digest, signal, sent) {
    const headers = { 'Content-Type': fields.CHUNK, 'Upload-Offset': String(start) }
    if (this.offer === null) Object.assign(headers, VERSION, { 'Content-Type': fields.TUS })
    else headers['Content-Digest'] = fields.formatDigest(ALGORITHM, digest)
    const answer = await this.#request('PATCH', this.url, signal, headers, blob, sent)
    if (answer.status !== 204) throw refusal(answer)
    return this.offer === null ? this.#missing(answer) : null // a server of tus may take less than was sent
  }

  /** Asks the server to verify and publish (P-COMPLETE-1), and waits for it. False if something is missing. */
  async complete(digest, signal) {
    const headers = {
      'Content-Type': fields.CHUNK,
      'Upload-Complete': '?1',
      'Upload-Digest': fields.formatDigest(ALGORITHM, digest),
    }
    for (;;) {
      const answer = await this.#request('PATCH', this.url, signal, headers, EMPTY)
      if (answer.status === 204) {
        const stored = fields.parseDigest(answer.header('Repr-Digest'), ALGORITHM)
        if (stored !== null && fields.hex(stored) !== fields.hex(digest)) throw mistake('digest-differs')
        return true
      }
      if (answer.status === 409 && refusal(answer).code === 'missing-ranges') return false
      if (answer.status !== 202) throw refusal(answer)
      await sleep(fields.parseRetryAfter(answer.header('Retry-After'), Date.now()) ?? 1, signal)
    }
  }

  /** Removes what is stored of it (T-DELETE-1). */
  async remove() {
    const answer = await this.#request('DELETE', this.url)
    if (!REMOVED.has(answer.status)) throw refusal(answer)
  }

  #heed(answer) {
    this.offer = fields.parseParallel(answer.header('Upload-Parallel'))
  }

  /** What is missing if everything before `offset` is there. */
  #from(offset) {
    return { ranges: offset < this.#size ? [[offset, this.#size]] : [], more: false }
  }

  /** What is missing, as an answer tells it: null if that cannot be told. */
  #missing(answer) {
    if (this.offer !== null) return fields.parseMissing(answer.header('Upload-Missing'))
    const offset = fields.integer(answer.header('Upload-Offset'))
    return offset === null || offset > this.#size ? null : this.#from(offset)
  }

  /** An answer to HEAD has no words; the one to the same question by GET has some, where a credential was refused. */
  async #explained(answer, signal) {
    if (answer.status !== 403) return answer
    const told = await this.#request('GET', this.url.replace(/\/files\/(?=[^/]+$)/, '/api/uploads/'), signal)
    return told.status === answer.status ? told : answer
  }

  async #request(method, url, signal, headers = {}, body = null, sent) {
    const version = method === 'HEAD' || method === 'DELETE' ? VERSION : {}
    return request(method, url, { headers: { ...this.#headers(), ...version, ...headers }, body, signal, sent })
  }
}
