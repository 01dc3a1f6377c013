// Which ranges the server has, of uploads that nobody here knows better of, as long as their cards can be seen.
//
// Rule of this file: at most a twentieth of the time goes into asking, and nothing is asked for what nobody looks at.

export class Sight {
  /** @param {(path: string) => Promise<any>} read JSON of the API; `changed` is called when ranges of an item are others */
  constructor(read, changed) {
    this.#read = read
    this.#changed = changed
    document.addEventListener('visibilitychange', () => this.look())
  }

  #read
  #changed
  #seen = new Set()
  /** When an item may be asked for again. */
  #after = new WeakMap()
  #looking = false
  #observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) this.#seen.add(target.view)
      else this.#seen.delete(target.view)
    }
    this.look()
  })

  watch(view) {
    this.#observer.observe(view.element)
  }

  leave(view) {
    this.#observer.unobserve(view.element)
    this.#seen.delete(view)
  }

  async look() {
    if (this.#looking || document.hidden) return
    this.#looking = true
    for (const { item } of this.#seen) {
      if (!item.isAhead || item.storedAt === item.received || performance.now() < (this.#after.get(item) ?? 0)) continue
      const began = performance.now()
      const { received } = item
      try {
        item.stored = await this.#rangesOf(item)
        item.storedAt = received
      } catch {
        // it is asked for again
      }
      this.#after.set(item, performance.now() + Math.max(700, 20 * (performance.now() - began)))
      this.#changed()
    }
    this.#looking = false
  }

  async #rangesOf({ id }) {
    const stored = []
    for (let after = 0; after !== null; ) {
      const page = await this.#read(`api/uploads/${id}?limit=10000&after=${after}`)
      for (const [offset, length] of page.ranges) {
        const last = stored[stored.length - 1]
        if (last && last[1] >= offset) last[1] = Math.max(last[1], offset + length)
        else stored.push([offset, offset + length])
      }
      after = page.next
    }
    return stored
  }
}
