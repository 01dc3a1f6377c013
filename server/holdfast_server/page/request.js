// One HTTP request, with what `fetch` cannot do: it tells how far a body has gone, and a connection on which nothing moves
// is left.
//
// Rule of this file: an answer of any status is an answer. None at all is a `RequestError`; the abort of `signal` throws
// its reason.

/** Nobody answered. `stalled`: the connection was there, and nothing moved on it. */
export class RequestError extends Error {
  constructor(message, { stalled = false } = {}) {
    super(message)
    this.stalled = stalled
  }
}

/**
 * @param {{headers?: Record<string, string>, body?: Blob | null, signal?: AbortSignal, stall?: number,
 *   sent?: (bytes: number) => void}} options `stall` in seconds
 * @returns {Promise<{status: number, url: string, header: (name: string) => string | null, json: () => any}>}
 */
export function request(method, url, { headers = {}, body = null, signal, stall = 30, sent } = {}) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted()
    const xhr = new XMLHttpRequest()
    let timer
    const moved = () => {
      clearTimeout(timer)
      timer = setTimeout(() => end(() => reject(new RequestError('Nothing moved on the connection.', { stalled: true }))), stall * 1000)
    }
    const aborted = () => end(() => reject(signal.reason))
    const end = (settle) => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', aborted)
      settle()
      xhr.abort()
    }
    signal?.addEventListener('abort', aborted)
    xhr.open(method, url)
    for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value)
    xhr.onload = () =>
      end(() => {
        const text = xhr.responseText
        const fields = new Map(
          xhr
            .getAllResponseHeaders()
            .split('\r\n')
            .filter((line) => line.includes(':'))
            .map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]),
        )
        resolve({
          status: xhr.status,
          url: xhr.responseURL || url,
          header: (name) => fields.get(name.toLowerCase()) ?? null,
          json: () => {
            try {
              return JSON.parse(text)
            } catch {
              return null // a proxy in between answers in its own words
            }
          },
        })
      })
    xhr.onerror = () => end(() => reject(new RequestError('The server cannot be reached.')))
    xhr.onprogress = moved
    if (sent || body) {
      xhr.upload.onprogress = (event) => {
        moved()
        sent?.(event.loaded)
      }
    }
    moved()
    xhr.send(body)
  })
}
