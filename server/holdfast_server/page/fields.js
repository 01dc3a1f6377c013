// The values of fields that a browser sends and reads: protocol.md, sections 1 and 3.
//
// Rule of this file: text in, values out, and the other way round. What cannot be read is null, never a guess.

export const CHUNK = 'application/vnd.holdfast.chunk'
export const TUS = 'application/offset+octet-stream'

/** `?1;granule=65536;max-chunk=67108864;holes` (P-OFFER-1). */
export function parseParallel(text) {
  const [offered, ...rest] = (text ?? '').split(';').map((each) => each.trim())
  if (offered !== '?1') return null
  const members = new Map(rest.map((each) => each.split('=')))
  const granule = integer(members.get('granule'))
  const maxChunk = integer(members.get('max-chunk'))
  return granule && maxChunk ? { granule, maxChunk } : null
}

/** `(65536 65536), (262144 10);more` (V-MISSING-1): `{ranges, more}`; without the field nothing is missing. */
export function parseMissing(text) {
  if (text === null || text === undefined) return { ranges: [], more: false }
  const found = [...text.matchAll(/\((\d{1,18}) (\d{1,18})\)(;more)?/g)]
  if (found.map((each) => each[0]).join(', ') !== text.trim()) return null
  return {
    ranges: found.map(([, offset, size]) => [Number(offset), Number(offset) + Number(size)]),
    more: found.some((each) => each[3] !== undefined),
  }
}

/** 1 to 18 digits (V-INT-1). */
export function integer(text) {
  return /^\d{1,18}$/.test(text ?? '') ? Number(text) : null
}

/** Seconds to wait: `Retry-After` is a number of them or a date (RFC 9110, section 10.2.3). */
export function parseRetryAfter(text, now) {
  const seconds = integer(text)
  if (seconds !== null) return seconds
  const date = Date.parse(text ?? '')
  return Number.isNaN(date) ? null : Math.max(0, (date - now) / 1000)
}

/** The bytes of one algorithm in an RFC 9530 dictionary, or null. */
export function parseDigest(text, algorithm) {
  const prefix = `${algorithm}=:`
  const member = (text ?? '').split(',').map((each) => each.trim()).find((each) => each.startsWith(prefix))
  if (!member?.endsWith(':')) return null
  try {
    return Uint8Array.from(atob(member.slice(prefix.length, -1)), (character) => character.charCodeAt(0))
  } catch {
    return null
  }
}

export function formatDigest(algorithm, bytes) {
  return `${algorithm}=:${base64(bytes)}:`
}

/** `Upload-Metadata` (V-META-1). */
export function formatMetadata(values) {
  return Object.entries(values)
    .map(([key, value]) => `${key} ${base64(new TextEncoder().encode(value))}`.trim())
    .join(',')
}

export function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

function base64(bytes) {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''))
}
