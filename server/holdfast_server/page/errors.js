// Why an upload does not go on.
//
// Rule of this file: every error has a code and a sentence that says what to do; the server's own words go before ours.
// `final` is the one place that says whether another try makes sense.

import * as fields from './fields.js'

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
    if (PASSING.has(this.code)) return false
    return this.status < 500 && this.status !== 408 && this.status !== 429
  }

  /** Whether it was the size of the request, so that a smaller chunk may pass; not that of the file. */
  get isChunkTooLarge() {
    return this.code === 'chunk-too-large' || this.code === 'status-413'
  }

  /** Whether another credential may help. */
  get isRefusal() {
    return this.status === 401 || this.status === 403
  }
}

const MESSAGES = {
  paused: 'The upload is paused.',
  cancelled: 'The upload was cancelled.',
  unreachable: 'The server cannot be reached.',
  stalled: 'Nothing moved on the connection.',
  'no-worker': 'The part of this page that computes digests could not be loaded.',
  unreadable: 'The file cannot be read any more: it was moved, changed or removed. Choose it again.',
  'other-file': 'This file has another size than the one that was begun. Choose the one that was.',
  elsewhere: 'Something else than the server answers here, perhaps a page to log in at.',
  'other-login': 'Something before the server asks who this is (401). Log in there and load this page anew, or paste a token or a signed URL.',
  'not-here': 'There is nothing that takes uploads at this address (404). Check it.',
  'no-location': 'The server took the upload and did not say where it is: something in between may have removed that.',
  'not-understood': 'The answer cannot be understood; something in between has changed it.',
  'upload-failed': 'The server has given this upload up. Cancel it and begin anew.',
  'digest-differs': 'The server has stored something else than this file. Begin anew.',
}

/** Of answers without words of their own, as those of proxies are: their code, and what we say. */
const STATUSES = {
  200: ['status-200', 'Something else came back than the server answers: perhaps one has to log in again. Reload this page, and go on.'],
  401: ['unauthorized', 'The server does not know this credential, or its time is over. Give another one.'],
  403: ['forbidden', 'This is not allowed with this credential. Ask for one that allows it.'],
  404: ['not-found', 'The server knows nothing of this upload any more. Go on, and it begins anew.'],
  405: ['status-405', 'No uploads are taken at this address, or something in between lets no such request through (405).'],
  410: ['gone', 'The server does not have this upload any more. Go on, and it begins anew.'],
  413: ['status-413', 'Something before the server takes no requests of this size (413). Whoever runs it has to allow larger ones.'],
  429: ['status-429', 'The server asks for fewer requests (429).'],
  502: ['status-502', 'The server does not answer what is before it (502).'],
  503: ['status-503', 'The server is busy or being looked after (503).'],
  504: ['status-504', 'The server does not answer what is before it (504).'],
  507: ['status-507', 'The server has no room left (507). It goes on when there is some.'],
}

/** Where the server's sentence is for programs. */
const FOR_PEOPLE = { unauthenticated: STATUSES[401][1] }

/** What another try, after a question where the upload is, may not meet again. */
const PASSING = new Set([
  'unreachable',
  'stalled',
  'no-worker',
  'not-understood',
  'fenced',
  'digest-mismatch',
  'request-timeout',
  'length-required',
  'offset-mismatch',
  'status-409',
  'status-423',
])

export function mistake(code, more) {
  return new UploadError(code, MESSAGES[code], more)
}

/** An answer that is no success, as an error: in the server's own words where it has some. `answer` is one of `request`. */
export function refusal(answer) {
  const problem = answer.json()
  const retryAfter = fields.parseRetryAfter(answer.header('Retry-After'), Date.now())
  const [code, message] = STATUSES[answer.status] ?? [`status-${answer.status}`, `The server answered ${answer.status}.`]
  return new UploadError(problem?.code ?? code, FOR_PEOPLE[problem?.code] ?? problem?.detail ?? message, { status: answer.status, problem, retryAfter })
}

/** JSON of the API, as an answer of `fetch` has it. Throws an UploadError if the server refuses, or is not what answers. */
export async function understood(response) {
  const { ok, status } = response
  if (!/\bjson\b/.test(response.headers.get('Content-Type') ?? '')) {
    if (status === 401) throw mistake('other-login', { status })
    // Of a status that passes all that is known is that the server is behind it.
    if (status < 500 && status !== 408 && status !== 429) throw mistake('elsewhere')
  }
  if (!ok) throw await refusalOf(response)
  return response.json().catch((error) => {
    throw error instanceof SyntaxError ? mistake('elsewhere') : error
  })
}

/** An answer of `fetch` that is no success, as an error. */
export async function refusalOf(response) {
  const problem = await response.json().catch(() => null)
  return refusal({ status: response.status, header: (name) => response.headers.get(name), json: () => problem })
}
