// Digests, computed beside the page: what asks the worker of hasher.js.
//
// Rule of this file: chunks share one worker; a large file has one of its own for its digest, which can be ended.

import { mistake } from './errors.js'

export class Hasher {
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

  /** The SHA-256 of `blob`, as bytes. `tell` hears how many bytes of a large one were read. */
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

/** The SHA-256 of what fits into memory. */
export function hashChunk(blob) {
  shared ??= new Hasher()
  return shared.hash(blob)
}
