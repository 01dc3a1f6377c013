// Digests, computed beside the page: what asks the worker of hasher.js.
//
// Rule of this file: chunks share one worker; a large file has one of its own for its digest, which can be ended. A worker
// is loaded when it is first asked, and anew after it could not be: its script comes over the same bad network.

import { mistake } from './errors.js'

export class Hasher {
  #worker = null
  #asked = new Map()
  #last = 0

  #load() {
    const worker = new Worker(new URL('hasher.js', import.meta.url), { type: 'module' })
    worker.onmessage = ({ data: { id, digest, error, read } }) => {
      const asked = this.#asked.get(id)
      if (read !== undefined) {
        asked?.tell?.(read)
        return
      }
      this.#asked.delete(id)
      if (digest) asked?.resolve(digest)
      else asked?.reject(mistake('unreadable'))
    }
    // One that was not loaded has no words.
    worker.onerror = (event) => this.end(event.message ? new Error(event.message) : mistake('no-worker'))
    return worker
  }

  /** The SHA-256 of `blob`, as bytes. `tell` hears how many bytes of a large one were read. */
  hash(blob, tell) {
    return new Promise((resolve, reject) => {
      const id = ++this.#last
      this.#asked.set(id, { resolve, reject, tell })
      this.#worker ??= this.#load()
      this.#worker.postMessage({ id, blob })
    })
  }

  /** Stop now: nobody who has asked is left to wait. */
  end(why = mistake('cancelled')) {
    this.#worker?.terminate()
    this.#worker = null
    for (const { reject } of this.#asked.values()) reject(why)
    this.#asked.clear()
  }
}

let shared = null

/** The SHA-256 of what fits into memory. */
export function hashChunk(blob) {
  shared ??= new Hasher()
  return shared.hash(blob)
}
