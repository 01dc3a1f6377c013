// Connections that several uploads to one server share.
//
// Rule of this file: who comes first goes first; nobody goes before the time that the server has asked to wait for.

import { Throttle } from './planner.js'

const CONNECTIONS = 4

/** Give the same one to all uploads to a server; a browser has six to an origin. */
export class Connections {
  constructor(most = CONNECTIONS) {
    this.throttle = new Throttle(most)
  }

  #busy = 0
  #queue = []

  /** Carries `task` out when it is its turn. */
  async use(signal, task) {
    while (this.#busy >= this.throttle.limit) await this.#turn(signal)
    this.#busy += 1
    try {
      const wait = this.throttle.until - seconds()
      if (wait > 0) await sleep(wait, signal)
      return await task()
    } finally {
      this.#busy -= 1
      this.#queue.shift()?.()
    }
  }

  #turn(signal) {
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#queue = this.#queue.filter((each) => each !== enter)
        reject(signal.reason)
      }
      const enter = () => {
        signal.removeEventListener('abort', leave)
        resolve()
      }
      signal.throwIfAborted()
      signal.addEventListener('abort', leave, { once: true })
      this.#queue.push(enter)
    })
  }
}

/** Of a clock that never goes back. */
export function seconds() {
  return performance.now() / 1000
}

/** Resolves after `wait` seconds; the abort of `signal` throws its reason. */
export function sleep(wait, signal) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted()
    const leave = () => {
      clearTimeout(timer)
      reject(signal.reason)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', leave)
      resolve()
    }, wait * 1000)
    signal.addEventListener('abort', leave, { once: true })
  })
}
