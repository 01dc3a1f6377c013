// SHA-256 (FIPS 180-4) that takes a message in pieces.
//
// Rule of this file: WebCrypto is faster, but wants the whole message in memory and is only there in a secure context
// (HTTPS or this machine). This is for what it cannot do: the digest of a whole file, and pages on plain HTTP.

const K = new Int32Array(64)
const START = new Int32Array(8)

// The fractional parts of the cube roots of the first 64 primes, and of the square roots of the first 8.
for (let n = 2, found = 0; found < 64; n++) {
  let prime = true
  for (let i = 2; i * i <= n; i++) if (n % i === 0) prime = false
  if (!prime) continue
  if (found < 8) START[found] = (Math.sqrt(n) % 1) * 2 ** 32
  K[found++] = (Math.cbrt(n) % 1) * 2 ** 32
}

export class Sha256 {
  #state = START.slice()
  #schedule = new Int32Array(64)
  #block = new Uint8Array(64)
  #size = 0

  /** @param {Uint8Array} bytes */
  update(bytes) {
    let at = 0
    const held = this.#size % 64
    this.#size += bytes.length
    if (held > 0) {
      at = Math.min(64 - held, bytes.length)
      this.#block.set(bytes.subarray(0, at), held)
      if (held + at < 64) return this
      this.#compress(this.#block, 0, 64)
    }
    const whole = at + Math.floor((bytes.length - at) / 64) * 64
    this.#compress(bytes, at, whole)
    this.#block.set(bytes.subarray(whole))
    return this
  }

  /** The digest, 32 bytes; nothing can be added after it. */
  digest() {
    const held = this.#size % 64
    const tail = new Uint8Array(held < 56 ? 64 : 128)
    tail.set(this.#block.subarray(0, held))
    tail[held] = 0x80
    const view = new DataView(tail.buffer)
    view.setUint32(tail.length - 8, Math.floor(this.#size / 2 ** 29))
    view.setUint32(tail.length - 4, (this.#size * 8) % 2 ** 32)
    this.#compress(tail, 0, tail.length)
    const digest = new DataView(new ArrayBuffer(32))
    this.#state.forEach((word, i) => digest.setInt32(4 * i, word))
    return new Uint8Array(digest.buffer)
  }

  #compress(bytes, from, to) {
    const w = this.#schedule
    const state = this.#state
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    for (let at = from; at < to; at += 64) {
      for (let i = 0; i < 16; i++) w[i] = view.getInt32(at + 4 * i)
      for (let i = 16; i < 64; i++) {
        const x = w[i - 15]
        const y = w[i - 2]
        const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3)
        const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10)
        w[i] = (w[i - 16] + s0 + w[i - 7] + s1) | 0
      }
      let a = state[0]
      let b = state[1]
      let c = state[2]
      let d = state[3]
      let e = state[4]
      let f = state[5]
      let g = state[6]
      let h = state[7]
      // Eight rounds, each with the names moved on by one: twice as fast as moving the values.
      for (let i = 0; i < 64; i += 8) {
        h = (h + sum1(e) + (g ^ (e & (f ^ g))) + K[i] + w[i]) | 0
        d = (d + h) | 0
        h = (h + sum0(a) + ((a & b) | (c & (a | b)))) | 0
        g = (g + sum1(d) + (f ^ (d & (e ^ f))) + K[i + 1] + w[i + 1]) | 0
        c = (c + g) | 0
        g = (g + sum0(h) + ((h & a) | (b & (h | a)))) | 0
        f = (f + sum1(c) + (e ^ (c & (d ^ e))) + K[i + 2] + w[i + 2]) | 0
        b = (b + f) | 0
        f = (f + sum0(g) + ((g & h) | (a & (g | h)))) | 0
        e = (e + sum1(b) + (d ^ (b & (c ^ d))) + K[i + 3] + w[i + 3]) | 0
        a = (a + e) | 0
        e = (e + sum0(f) + ((f & g) | (h & (f | g)))) | 0
        d = (d + sum1(a) + (c ^ (a & (b ^ c))) + K[i + 4] + w[i + 4]) | 0
        h = (h + d) | 0
        d = (d + sum0(e) + ((e & f) | (g & (e | f)))) | 0
        c = (c + sum1(h) + (b ^ (h & (a ^ b))) + K[i + 5] + w[i + 5]) | 0
        g = (g + c) | 0
        c = (c + sum0(d) + ((d & e) | (f & (d | e)))) | 0
        b = (b + sum1(g) + (a ^ (g & (h ^ a))) + K[i + 6] + w[i + 6]) | 0
        f = (f + b) | 0
        b = (b + sum0(c) + ((c & d) | (e & (c | d)))) | 0
        a = (a + sum1(f) + (h ^ (f & (g ^ h))) + K[i + 7] + w[i + 7]) | 0
        e = (e + a) | 0
        a = (a + sum0(b) + ((b & c) | (d & (b | c)))) | 0
      }
      state[0] += a
      state[1] += b
      state[2] += c
      state[3] += d
      state[4] += e
      state[5] += f
      state[6] += g
      state[7] += h
    }
  }
}

function sum0(x) {
  return ((x >>> 2) | (x << 30)) ^ ((x >>> 13) | (x << 19)) ^ ((x >>> 22) | (x << 10))
}

function sum1(x) {
  return ((x >>> 6) | (x << 26)) ^ ((x >>> 11) | (x << 21)) ^ ((x >>> 25) | (x << 7))
}
