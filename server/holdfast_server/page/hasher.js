// A worker that reads and hashes, so that the page never waits for it.
//
// Rule of this file: `{id, blob}` comes in, `{id, digest}` or `{id, error}` goes out, and `{id, read}` in between for one
// that is read in pieces. A blob of up to 8 MiB is held at once; a larger one is read in pieces of 4 MiB.

import { Sha256 } from './sha256.js'

const AT_ONCE = 8 * 1024 * 1024
const PIECE = 4 * 1024 * 1024

async function hash(blob, tell) {
  if (blob.size <= AT_ONCE) {
    const bytes = await blob.arrayBuffer()
    if (globalThis.crypto?.subtle) return new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))
    return new Sha256().update(new Uint8Array(bytes)).digest()
  }
  const whole = new Sha256()
  for (let at = 0; at < blob.size; at += PIECE) {
    whole.update(new Uint8Array(await blob.slice(at, at + PIECE).arrayBuffer()))
    tell(Math.min(at + PIECE, blob.size))
  }
  return whole.digest()
}

addEventListener('message', async ({ data: { id, blob } }) => {
  try {
    postMessage({ id, digest: await hash(blob, (read) => postMessage({ id, read })) })
  } catch (error) {
    postMessage({ id, error: String(error?.message ?? error) })
  }
})
