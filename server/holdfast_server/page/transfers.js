// The uploads of this page: their queue, and what is remembered of them.
//
// Rule of this file: at most three at once, in the order in which they were chosen; one upload runs in one tab only (a lock
// of the browser); what is not over is in the journal.

import { forget, isSame, recall, remember } from './journal.js'
import { reopen } from './pick.js'
import { Connections, Upload } from './upload.js'

const AT_ONCE = 3

/** Events: `add` and `change`, with the upload in `detail`; `rest` when the list of `resting` has changed. */
export class Transfers extends EventTarget {
  /**
   * @param {URL} endpoint where uploads are created
   * @param {() => Record<string, string>} headers of every request
   */
  constructor(endpoint, headers) {
    super()
    this.endpoint = endpoint
    /** Uploads whose turn has not come. */
    this.queue = []
    /** Records of uploads that were begun and for which the file is not there, by URL. */
    this.resting = new Map()
    this.#headers = headers
  }

  #headers
  #connections = new Connections()
  #running = new Set()
  #records = new Map()

  /** Goes on with what was begun before the page was loaded, where the file can be had without asking. */
  async recall() {
    for (const record of await recall(this.endpoint.href)) {
      if (!(await hold(record.url, 1500))) continue
      this.resting.set(record.url, record)
      const file = record.handle && !record.paused ? await reopen(record.handle, false) : null
      if (file && isSame(record, file, record.path)) this.add({ file, path: record.path, handle: record.handle })
    }
    this.dispatchEvent(new Event('rest'))
  }

  /** A file to send. One that was begun before goes on. */
  add({ file, path, handle }) {
    const record = [...this.resting.values()].find((each) => isSame(each, file, path)) ?? null
    const metadata = path === file.name ? {} : { relativePath: path }
    const upload = new Upload(file, {
      endpoint: this.endpoint,
      url: record?.url ?? null,
      metadata,
      headers: this.#headers,
      connections: this.#connections,
    })
    upload.path = path
    upload.addEventListener('created', () => this.#keep(upload, { path, handle }))
    upload.addEventListener('change', () => this.#tell('change', upload))
    if (record) {
      this.resting.delete(record.url)
      this.#keep(upload, { path, handle: handle ?? record.handle })
      this.dispatchEvent(new Event('rest'))
    }
    this.queue.push(upload)
    this.#tell('add', upload)
    this.#pump()
  }

  /** Goes on with one that rests, if its file can be had; false if the user has to choose it again. */
  async wake(record) {
    const file = record.handle ? await reopen(record.handle, true) : null
    if (!file || !isSame(record, file, record.path)) return false
    this.add({ file, path: record.path, handle: record.handle })
    return true
  }

  pause(upload) {
    this.queue = this.queue.filter((each) => each !== upload)
    upload.pause()
    if (upload.state === 'waiting') upload.state = 'paused'
    this.#mark(upload, true)
    this.#tell('change', upload)
  }

  resume(upload) {
    if (upload.running || this.queue.includes(upload)) return
    upload.state = 'waiting'
    this.queue.push(upload)
    this.#mark(upload, false)
    this.#tell('change', upload)
    this.#pump()
  }

  async cancel(upload) {
    this.queue = this.queue.filter((each) => each !== upload)
    try {
      await upload.cancel()
    } finally {
      this.#forget(upload)
      this.#tell('change', upload)
    }
  }

  /** Removes what was begun and has no file here. */
  async drop(record) {
    const answer = await fetch(record.url, { method: 'DELETE', headers: this.#headers() })
    if (!answer.ok && answer.status !== 404 && answer.status !== 410) throw new Error(`The server answered ${answer.status}.`)
    this.resting.delete(record.url)
    release(record.url)
    await forget(record.url)
    this.dispatchEvent(new Event('rest'))
  }

  #pump() {
    while (this.#running.size < AT_ONCE && this.queue.length > 0) this.#carryOut(this.queue.shift())
  }

  async #carryOut(upload) {
    this.#running.add(upload)
    try {
      await upload.start()
      this.#forget(upload)
    } catch (error) {
      if (error.code === 'not-found' || error.code === 'gone' || error.code === 'upload-digest-mismatch') this.#forget(upload)
    } finally {
      this.#running.delete(upload)
      this.#tell('change', upload)
      this.#pump()
    }
  }

  #keep(upload, { path, handle }) {
    const record = {
      url: upload.url,
      endpoint: this.endpoint.href,
      name: upload.file.name,
      path,
      size: upload.size,
      modified: upload.file.lastModified,
      handle,
      paused: false,
    }
    this.#records.set(upload, record)
    remember(record)
    hold(record.url, 1500)
  }

  #mark(upload, paused) {
    const record = this.#records.get(upload)
    if (record) remember(Object.assign(record, { paused }))
  }

  #forget(upload) {
    const record = this.#records.get(upload)
    if (!record) return
    this.#records.delete(upload)
    forget(record.url)
    release(record.url)
  }

  #tell(type, upload) {
    this.dispatchEvent(new CustomEvent(type, { detail: upload }))
  }
}

const held = new Map()

/**
 * Other tabs leave this upload alone as long as this one lives. False if another one has it; `patience` is how many
 * milliseconds that is waited for, since the page before a reload is not gone at once. Without locks (plain HTTP) nothing
 * is kept apart, but nothing goes on by itself there either.
 */
async function hold(url, patience = 0) {
  if (held.has(url) || !navigator.locks) return true
  held.set(url, () => {})
  const taken = await new Promise((resolve) => {
    const keep = () => new Promise((end) => (held.set(url, end), resolve(true)))
    navigator.locks.request(`holdfast ${url}`, { signal: AbortSignal.timeout(patience) }, keep).catch(() => resolve(false))
  })
  if (!taken) held.delete(url)
  return taken
}

function release(url) {
  held.get(url)?.()
  held.delete(url)
}
