// What this page shows the server to be let in: a token, or a signed URL.
//
// Rule of this file: a credential is in the tab's session storage and nowhere else, and goes to this server only; where there is
// no storage (all cookies are blocked), or what it has is none of this server, the page works without. A token
// goes in a field and stands in no address; a signature stands in addresses, which is what it is made for (A-SIGN-1), and
// for the API in none but this page's own requests.

const PARAMETER = 'signature'

export class Credential {
  /** The token, or null. */
  token = null
  /** The signed URL, or null: of the collection, or of one upload. */
  signed = null

  /** @param {URL} root where the application is */
  constructor(root) {
    this.#root = root
    this.#key = `holdfast-credential ${root.pathname}` // another application may be at the same origin
    try {
      const kept = sessionStorage.getItem(this.#key)
      if (kept !== null) Object.assign(this, this.read(kept))
    } catch {
      // the server will ask for one
    }
  }

  #root
  #key

  get exists() {
    return this.token !== null || this.signed !== null
  }

  /** The id of the one upload that the signed URL is for, or null. */
  get upload() {
    const id = this.signed?.pathname.slice(this.#files.pathname.length + 1)
    return id ? id : null
  }

  /** Where uploads are created; null if that is not what the URL was signed for. */
  get endpoint() {
    if (this.signed === null) return this.#files
    return this.upload === null ? this.signed : null
  }

  /** Fields of every request. */
  headers = () => (this.token === null ? {} : { Authorization: `Bearer ${this.token}` })

  /** The address of something of this server, with the signature if that is the credential. */
  address(path) {
    const url = new URL(path, this.#root)
    if (this.signed) url.searchParams.set(PARAMETER, this.signed.searchParams.get(PARAMETER))
    return url
  }

  /** What was pasted, for `keep`. Throws an Error with a sentence for the user if it is no credential. */
  read(text) {
    const given = text.trim().replace(/^bearer\s+/i, '')
    if (given.includes(`${PARAMETER}=`)) return { token: null, signed: this.#url(given) }
    return { token: readToken(given), signed: null }
  }

  /** From now on it is this one. */
  keep({ token, signed }) {
    Object.assign(this, { token, signed })
    try {
      if (this.exists) sessionStorage.setItem(this.#key, token ?? signed.href)
      else sessionStorage.removeItem(this.#key)
    } catch {
      // it is kept until the page is left
    }
  }

  get #files() {
    return new URL('files', this.#root)
  }

  #url(given) {
    let url
    try {
      url = new URL(given, this.#root)
    } catch {
      throw new Error('This is no URL. Copy it again, all of it and nothing else.')
    }
    if (url.origin !== this.#root.origin) throw new Error(`This URL is for ${url.origin}. Open the page there.`)
    const [, tail] = url.pathname.split(this.#files.pathname)
    if (!url.pathname.startsWith(this.#files.pathname) || !/^(\/[0-9a-f]{32})?$/.test(tail)) {
      throw new Error('This URL is not one to upload to: those end in /files or /files/ID, and then the signature.')
    }
    if (!url.searchParams.get(PARAMETER)) throw new Error('The signature of this URL is missing. Copy it again, all of it.')
    url.hash = ''
    return url
  }
}

/** Whether this URL has its own right with it. */
export function isSigned(url) {
  return new URL(url).searchParams.has(PARAMETER)
}

/** The URL without that right. */
export function unsigned(url) {
  const bare = new URL(url)
  bare.searchParams.delete(PARAMETER)
  return bare.href
}

/** A signed URL behind the `#` of this page's address, where it was sent to no server; it does not stay there. */
export function fromAddress() {
  const text = location.hash.slice(1)
  if (!text.includes(`${PARAMETER}=`)) return null
  history.replaceState(null, '', location.pathname + location.search)
  return text
}

function readToken(given) {
  if (given === '') throw new Error('Paste a token or a signed URL.')
  if (/^https?:/i.test(given)) throw new Error('This URL has no signature. Ask for a signed one, or paste a token.')
  if (!/^[\x21-\x7e]+$/.test(given)) {
    throw new Error('This is no token: it has blanks or other characters in it. Copy it again, all of it and nothing else.')
  }
  return given
}
