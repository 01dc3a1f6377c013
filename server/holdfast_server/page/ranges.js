// Sorted, disjoint half-open ranges of offsets, `[start, end)`.
//
// Rule of this file: ranges that touch or overlap are one, and none is empty. Values go in and out; nothing else is known.

export class Ranges {
  /** @param {Iterable<[number, number]>} ranges in any order */
  constructor(ranges = []) {
    /** Starts and ends in turn: 0 3 5 9 is `[0, 3)` and `[5, 9)`. */
    this.edges = []
    for (const [start, end] of ranges) this.add(start, end)
  }

  *[Symbol.iterator]() {
    for (let i = 0; i < this.edges.length; i += 2) yield [this.edges[i], this.edges[i + 1]]
  }

  /** How many ranges there are. */
  get count() {
    return this.edges.length / 2
  }

  /** How many bytes they hold. */
  get size() {
    let size = 0
    for (const [start, end] of this) size += end - start
    return size
  }

  add(start, end) {
    if (start >= end) return
    const { edges } = this
    if (edges.length === 0 || start > edges[edges.length - 1]) {
      edges.push(start, end) // behind all others: a list that is read in order costs nothing
      return
    }
    const first = this.#edge(start, false)
    const last = this.#edge(end, true)
    const put = []
    if (first % 2 === 0) put.push(start)
    if (last % 2 === 0) put.push(end)
    edges.splice(first, last - first, ...put)
  }

  remove(start, end) {
    if (start >= end) return
    const first = this.#edge(start, false)
    const last = this.#edge(end, true)
    const put = []
    if (first % 2 === 1) put.push(start)
    if (last % 2 === 1) put.push(end)
    this.edges.splice(first, last - first, ...put)
  }

  /** Whether all of `[start, end)` is there. */
  covers(start, end) {
    const at = this.#edge(start, true)
    return start >= end || (at % 2 === 1 && this.edges[at] >= end)
  }

  /** What lacks between 0 and `length`. */
  gaps(length) {
    const found = new Ranges([[0, length]])
    for (const [start, end] of this) found.remove(start, end)
    return found
  }

  /** The first edge at or behind `offset`; strictly behind it with `beyond`. */
  #edge(offset, beyond) {
    let low = 0
    let high = this.edges.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (beyond ? this.edges[middle] > offset : this.edges[middle] >= offset) high = middle
      else low = middle + 1
    }
    return low
  }
}
