// What the server says of the credential, and the dialog in which another one is given.
//
// Rule of this file: what may be done is asked of the server (D-JSON-3) and never guessed from the credential itself. Where
// the server does not answer, or something else does, it is asked again, and `trouble` says why; where it refuses, the user is
// asked, in the server's words.

import { sleep } from './connections.js'
import { fromAddress } from './credential.js'
import { at, put } from './elements.js'
import { mistake, understood, UploadError } from './errors.js'
import { size } from './format.js'
import { hasDialogs } from './pick.js'
import { backoff } from './planner.js'

const PROMISE = hasDialogs
  ? 'They are verified on the way, and go on after a reload or a broken connection.'
  : 'They are verified on the way. After a reload, choose or drop the same file again, and it goes on where it stopped.'

/** Seconds in which an answer of the API has to be there. */
const PATIENCE = 20

/**
 * Events: `leaving` before another credential is used, `change` when `who` is known or known to be nobody, `trouble` when it
 * could not be learned.
 */
export class Access extends EventTarget {
  /** @param {Credential} credential */
  constructor(credential) {
    super()
    /** What D-JSON-3 says; null: the server asks for a credential; undefined: the server has not answered yet. */
    this.who = undefined
    /** Why the server has not answered, an UploadError, and when it is asked again, in milliseconds since 1970. */
    this.trouble = null
    this.until = null
    this.#credential = credential
    at('credential').addEventListener('click', () => this.ask())
    at('ask').addEventListener('close', () => this.#answered())
    addEventListener('hashchange', () => this.#follow())
  }

  #credential
  /** The search for `who`, as long as it goes on. */
  #run = null
  #checking = null
  #counted = Promise.resolve()
  /** The dialog is open because the server has refused; where it did not, the user has opened it. */
  #refused = false

  /** To be called once, when others listen. */
  begin() {
    if (!this.#follow()) this.find()
  }

  may(scope) {
    return this.who?.scopes.includes(scope) ?? false
  }

  /** Asks the server who this is, until it has said so. */
  async find() {
    this.#run?.abort()
    const { signal } = (this.#run = new AbortController())
    const refused = this.#refused // a yes to what was asked before a refusal does not end that
    for (let failures = 1; ; failures++) {
      const said = await this.#whoIsThis(signal).catch((error) => error)
      if (signal.aborted) return // of a credential that is no longer the one
      const isRefused = said.status === 401
      if (isRefused || !(said instanceof UploadError)) {
        this.#run = this.trouble = null
        this.who = isRefused ? null : said
        this.#show()
        this.dispatchEvent(new Event('change'))
        if (isRefused) this.refuse(this.#credential.exists || said.problem === null ? said.message : undefined)
        else if (refused) at('ask').close()
        return
      }
      const wait = backoff(failures, Math.random(), said.retryAfter)
      this.trouble = said
      this.until = Date.now() + 1000 * wait
      this.dispatchEvent(new Event('trouble'))
      await sleep(wait, signal).catch(() => {})
      if (signal.aborted) return
    }
  }

  /**
   * Something went otherwise than expected: asks whether the server still says the same, which is true then. If it says
   * something else, or something else answers, everything begins anew as soon as it is known who this is.
   */
  check() {
    this.#checking ??= this.#check().finally(() => (this.#checking = null))
    return this.#checking
  }

  async #check() {
    if (!this.who || this.#run) return false
    const { who } = this
    const said = await this.#whoIsThis().catch((error) => error)
    if (this.who !== who || this.#run) return false
    if (JSON.stringify(said) === JSON.stringify(who)) return true
    if (!(said instanceof UploadError) || said.final) this.find()
    return false
  }

  async #whoIsThis(signal) {
    const said = await this.#get('api/credential', signal)
    if (!Array.isArray(said?.scopes)) throw mistake('elsewhere')
    return said
  }

  /** Something was sent: asks how many files a link still takes, and says it. One question after the other. */
  recount() {
    this.#counted = this.#counted.then(() => this.#recount())
  }

  async #recount() {
    if (!this.who?.signature || this.who.signature.upload) return
    const address = this.#credential.address('api/credential')
    const said = await this.#whoIsThis().catch(() => null)
    const isSame = address.href === this.#credential.address('api/credential').href
    if (!said?.signature || !this.who || !isSame) return
    this.who = said
    this.#show()
  }

  /** JSON of the API. Throws an UploadError. */
  async read(path) {
    try {
      return await this.#get(path)
    } catch (error) {
      if (error.status === 401 || error.code === 'elsewhere') this.check()
      throw error
    }
  }

  async #get(path, signal) {
    const patience = AbortSignal.timeout(1000 * PATIENCE)
    try {
      const answer = await fetch(this.#credential.address(path), {
        headers: this.#credential.headers(),
        cache: 'no-store',
        redirect: 'manual', // the server leads nowhere else
        signal: signal ? AbortSignal.any([signal, patience]) : patience,
      })
      return await understood(answer)
    } catch (error) {
      throw error instanceof UploadError ? error : mistake(patience.aborted ? 'stalled' : 'unreachable')
    }
  }

  /** The server has refused: asks for another credential, until one is given or the server takes one after all. */
  refuse(why) {
    this.#refused = true
    this.ask(why)
  }

  /** Asks the user for another credential. `why`: what is wrong with the one that there is. */
  ask(why = 'Paste a token that this server has given out, or a signed URL.') {
    at('credential').hidden = false
    put(at('ask-why'), why)
    at('ask-forget').hidden = !this.#credential.exists
    if (at('ask').open) return
    at('token').value = ''
    at('ask').returnValue = ''
    at('ask').showModal()
  }

  #answered() {
    const given = at('token').value
    at('token').value = ''
    this.#refused = false
    if (at('ask').returnValue === 'forget') this.#become({ token: null, signed: null })
    else if (at('ask').returnValue === 'use') this.#take(given)
  }

  /** False if there is nothing behind the `#`. */
  #follow() {
    const given = fromAddress()
    if (given !== null) this.#take(given)
    return given !== null
  }

  #take(given) {
    try {
      this.#become(this.#credential.read(given))
    } catch (error) {
      this.ask(error.message)
    }
  }

  #become(other) {
    this.dispatchEvent(new Event('leaving'))
    this.#credential.keep(other)
    this.find()
  }

  #show() {
    const { exists } = this.#credential
    at('credential').hidden = !exists && this.who !== null
    put(at('credential'), this.who?.owner && !this.who.signature ? `Credential of ${this.who.owner}` : 'Credential')
    put(at('drop-note'), this.who ? limits(this.who) || PROMISE : '')
  }
}

/** What may be sent, where that is not just anything. */
function limits({ signature, scopes, max_size: most, expires }) {
  if (!signature) return scopes.includes('create') ? '' : 'This credential may not send files; another one may.'
  const until = expires === null ? '' : `, until ${new Date(expires).toLocaleString()}`
  if (signature.upload) return `This link is for one upload${until}.`
  const { uses, left, types } = signature
  if (left === 0) {
    const many = uses === 1 ? 'one file' : `${uses} files`
    return `This link is used up: it was for ${many}. What was begun with it goes on; for another file ask for a new link.`
  }
  const bounds = [types.join(', '), most === null ? '' : `at most ${size(most)} each`].filter((each) => each)
  const many = left === 1 ? 'one' : left
  return `This link takes ${many}${left < uses ? ' more' : ''} ${left === 1 ? 'file' : 'files'}${bounds.length > 0 ? ` (${bounds.join('; ')})` : ''}${until}.`
}
