// The uploads of this page: their queue, and what is remembered of them.
//
// Rule of this file: at most three at once, in the order in which they were chosen; one upload runs in one tab only (a lock
// of the browser); what is not over is in the journal. An upload goes on only with a credential of whoever began it, or
// with a URL that was signed for it: another one would be told that there is none, and nothing would be left to go on with.

import { idOf } from './board.js'
import { isSigned, unsigned } from './credential.js'
import { forget, isSame, recall, remember } from './journal.js'
import { reopen } from './pick.js'
import { Remote } from './remote.js'
import { Connections, Upload } from './upload.js'

const AT_ONCE = 3
/** With these nothing is left on the server to go on with. */
const OVER = new Set(['not-found', 'gone', 'given-up', 'upload-digest-mismatch'])

/** Events: `add` and `change`, with the upload in `detail`; `rest` when the list of `resting` has changed. */
export class Transfers extends EventTarget {
  /** @param {Credential} credential with which requests are made */
  constructor(credential, root) {
    super()
    /** Uploads whose turn has not come. */
    this.queue = []
    /** Records of uploads that were begun and for which the file is not there, by URL. */
    this.resting = new Map()
    this.#credential = credential
    this.#place = new URL('files', root).href
  }

  #credential
  #place
  /** Whose credential it is; undefined as long as the server has not said it. */
  #owner = undefined
  #all = new Set()
  /** Those that were chosen since there was nothing left to send. */
  #batch = new Set()
  #running = new Set()
  #records = new Map()
  #connections = new Connections()
  /** The server has said 401: those that wait would only be told the same. */
  #locked = false
  #recalled = Promise.resolve()

  /** Another credential is about to be used: nothing is asked with it for what it may not be good for. */
  hold() {
    this.#owner = undefined
    for (const upload of this.#all) {
      if (upload.url !== null && isSigned(upload.url)) continue
      if (upload.running || this.queue.includes(upload)) {
        this.#stop(upload)
        upload.held = true
      }
    }
  }

  /** This is who it is now: goes on with what is theirs, also with what was begun before the page was loaded. */
  async become(owner) {
    this.#owner = owner
    this.#locked = false
    for (const upload of this.#all) this.#hand(upload)
    this.#pump()
    this.#recalled = this.#recalled.then(() => this.#recall())
    await this.#recalled
  }

  /** Goes on where the credential is good for it. */
  #hand(upload) {
    const { signed, upload: only, endpoint } = this.#credential
    const refused = upload.state === 'failed' && upload.error.isRefusal
    if (!upload.held && !refused) return
    if (upload.url === null) upload.endpoint = endpoint ?? upload.endpoint
    else if (only === idOf(upload.url)) this.#move(upload, signed.href)
    else if (signed === null && (upload.owner === this.#owner || upload.owner === null)) {
      this.#move(upload, unsigned(upload.url)) // whose it is was not in that signature
    }
    const record = this.#records.get(upload)
    upload.held = upload.url === null ? endpoint === null : record !== undefined && !this.#fits(record)
    if (!upload.held) this.resume(upload)
    this.#tell('change', upload)
  }

  #fits({ url, owner }) {
    return isSigned(url) || (this.#credential.signed === null && owner === this.#owner)
  }

  async #recall() {
    const known = new Set([...this.#all].map((upload) => upload.url))
    const found = (await recall(this.#place)).filter((record) => this.#fits(record) && !known.has(record.url))
    this.resting.clear()
    for (const record of found) {
      if (!(await hold(record.url, 1500))) continue
      this.resting.set(record.url, record)
      const file = record.handle && !record.paused ? await reopen(record.handle, false) : null
      if (file && isSame(record, file, record.path)) this.add({ file, path: record.path, handle: record.handle })
    }
    this.dispatchEvent(new Event('rest'))
  }

  /** A file to send. One that was begun before goes on. Throws if the credential is for another upload. */
  add({ file, path, handle }) {
    const record = [...this.resting.values()].find((each) => isSame(each, file, path)) ?? null
    const url = record?.url ?? this.#signedFor()
    const { endpoint } = this.#credential
    if (url === null && endpoint === null) throw new Error('This link is for one upload, and that is here already.')
    const metadata = path === file.name ? {} : { relativePath: path }
    const upload = new Upload(file, {
      endpoint: endpoint ?? this.#place,
      url,
      metadata,
      headers: this.#credential.headers,
      connections: this.#connections,
    })
    upload.path = path
    upload.owner = record ? record.owner : this.#owner
    /** It waits for another credential. `again`: it goes on as soon as it has stopped. */
    upload.held = upload.again = false
    this.#all.add(upload)
    if (!this.#isUnderWay) this.#batch.clear()
    this.#batch.add(upload)
    upload.addEventListener('created', () => {
      upload.owner = this.#owner
      this.#forget(upload) // where it was before, if it has begun anew
      this.#keep(upload, { path, handle })
    })
    upload.addEventListener('change', () => this.#tell('change', upload))
    if (url !== null) {
      this.resting.delete(url)
      this.#keep(upload, { path, handle: handle ?? record?.handle })
      this.dispatchEvent(new Event('rest'))
    }
    this.queue.push(upload)
    this.#tell('add', upload)
    this.#pump()
  }

  /** Whether something of what was chosen together is still to be sent. */
  get #isUnderWay() {
    for (const upload of this.#batch) if (isOpen(upload)) return true
    return false
  }

  /** The signed URL of an upload, if no file of this page is it yet. */
  #signedFor() {
    const { upload: only, signed } = this.#credential
    const taken = [...this.#all].some((upload) => upload.url !== null && idOf(upload.url) === only)
    return only === null || taken ? null : signed.href
  }

  /** Goes on with one that rests, if its file can be had; false if the user has to choose it again. */
  async wake(record) {
    const file = record.handle ? await reopen(record.handle, true) : null
    if (!file || !isSame(record, file, record.path)) return false
    this.add({ file, path: record.path, handle: record.handle })
    return true
  }

  /** Of all that is sent together: files, and how many of them are `done`, `open`, and `moving`; bytes, and bytes a second. */
  get batch() {
    const all = [...this.#batch]
    const sum = (of) => all.reduce((total, upload) => total + of(upload), 0)
    return {
      files: all.length,
      done: all.filter((upload) => upload.state === 'complete').length,
      open: all.filter(isOpen).length,
      moving: all.some((upload) => isOpen(upload) && !isStill(upload)),
      size: sum((upload) => upload.size),
      bytes: sum((upload) => upload.received),
      speed: sum((upload) => (upload.state === 'sending' && !upload.retryAt ? upload.speed : 0)),
    }
  }

  /** Whether bytes are on their way. What rests, waits for a credential or for another try is not. */
  get sends() {
    const sends = ({ state, retryAt, flying }) =>
      state === 'verifying' || (state === 'sending' && (retryAt === null || [...flying].length > 0))
    return [...this.#running].some(sends)
  }

  pauseAll() {
    this.queue = []
    for (const upload of this.#batch) if (isOpen(upload) && !isStill(upload)) this.pause(upload)
  }

  resumeAll() {
    for (const upload of this.#batch) if (isStill(upload) && !upload.held) this.resume(upload)
  }

  /** Throws if the server does not remove all of them. */
  async cancelAll() {
    this.queue = []
    const ends = await Promise.allSettled([...this.#batch].filter(isOpen).map((upload) => this.cancel(upload)))
    const failed = ends.find((end) => end.status === 'rejected')
    if (failed) throw failed.reason
  }

  pause(upload) {
    this.#stop(upload)
    this.#mark(upload, true)
    this.#tell('change', upload)
  }

  #stop(upload) {
    upload.again = false
    this.queue = this.queue.filter((each) => each !== upload)
    upload.pause()
    if (upload.state === 'waiting') upload.state = 'paused'
  }

  resume(upload) {
    upload.held = false
    upload.again = upload.running && upload.state === 'paused'
    if (upload.running || this.queue.includes(upload)) return
    this.#locked = false
    upload.state = 'waiting'
    this.queue.push(upload)
    this.#mark(upload, false)
    this.#tell('change', upload)
    this.#pump()
  }

  /** Throws if the server does not remove what is stored; it is sent no more then, too. */
  async cancel(upload) {
    this.#stop(upload)
    this.#batch.delete(upload)
    try {
      await this.#forget(upload) // first: a page that is loaded anew meanwhile would find nothing at the server, and begin anew
      await upload.cancel()
    } finally {
      this.#all.delete(upload)
      this.#tell('change', upload)
    }
  }

  /** Removes what was begun and has no file here. */
  async drop(record) {
    const { url, size } = record
    await new Remote({ endpoint: this.#place, url, size, headers: this.#credential.headers }).remove()
    this.resting.delete(record.url)
    await abandon(record.url)
    this.dispatchEvent(new Event('rest'))
  }

  #pump() {
    if (this.#locked || this.#owner === undefined) return
    while (this.#running.size < AT_ONCE && this.queue.length > 0) this.#carryOut(this.queue.shift())
  }

  async #carryOut(upload) {
    this.#running.add(upload)
    try {
      await upload.start()
      this.#forget(upload)
    } catch (error) {
      if (OVER.has(error.code)) this.#forget(upload)
      if (error.status === 401 && !isSigned(upload.url ?? this.#place)) this.#locked = true
    } finally {
      this.#running.delete(upload)
      if (upload.again) this.resume(upload)
      this.#tell('change', upload)
      this.#pump()
    }
  }

  #keep(upload, { path, handle }) {
    const record = {
      url: upload.url,
      endpoint: this.#place,
      owner: upload.owner,
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

  /** The same upload under a URL with another right. */
  #move(upload, url) {
    const record = this.#records.get(upload)
    if (upload.url === url || record === undefined) return
    abandon(record.url)
    upload.url = url
    upload.owner = this.#owner
    this.#keep(upload, record)
  }

  #mark(upload, paused) {
    const record = this.#records.get(upload)
    if (record) remember(Object.assign(record, { paused }))
  }

  async #forget(upload) {
    const record = this.#records.get(upload)
    this.#records.delete(upload)
    if (upload.state === 'complete') this.#all.delete(upload)
    if (record) await abandon(record.url)
  }

  #tell(type, upload) {
    this.dispatchEvent(new CustomEvent(type, { detail: upload }))
  }
}

function isOpen({ state }) {
  return state !== 'complete' && state !== 'cancelled'
}

/** Whether it does not go on without somebody who says so. */
function isStill({ state }) {
  return state === 'paused' || state === 'failed'
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

/** This upload is remembered no more, and other tabs are not held off. */
async function abandon(url) {
  const end = held.get(url)
  held.delete(url)
  await forget(url)
  end?.()
}
