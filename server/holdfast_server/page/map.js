// A picture of which ranges are stored: a grid of cells, each an equal share of the file, in reading order.
//
// Rule of this file: a cell is as dark as its share that is stored, whatever the number of ranges; what is on its way is
// lighter, and what has just landed glows for a moment (not where less motion is asked for).

const GLOW = 900

/** How much of each cell's share is covered, 0 to 1. One pass: ranges ascend. */
export function coverage(ranges, length, count, into = new Float32Array(count)) {
  into.fill(0)
  if (length <= 0) return into
  const share = length / count
  for (const [start, end] of ranges) {
    const first = Math.min(Math.floor(start / share), count - 1)
    const last = Math.min(Math.ceil(end / share) - 1, count - 1)
    if (first === last) {
      into[first] += (end - start) / share
      continue
    }
    into[first] += ((first + 1) * share - start) / share
    for (let i = first + 1; i < last; i++) into[i] = 1
    into[last] += (end - last * share) / share
  }
  return into
}

export class ChunkMap {
  /** @param {HTMLCanvasElement} canvas its size is that of the style sheet */
  constructor(canvas) {
    this.#canvas = canvas
    this.#context = canvas.getContext('2d')
    this.#sizes = new ResizeObserver(() => {
      this.#measure()
      this.#draw()
    })
    this.#sizes.observe(canvas)
  }

  #canvas
  #context
  #sizes
  #frame = 0
  #columns = 0
  #rows = 0
  #pitch = 0
  #ratio = 1
  #stored = new Float32Array(0)
  #flying = new Float32Array(0)
  #landed = new Float64Array(0)
  #source = null
  #fresh = true

  /** @param {{ranges: Iterable, flying: Iterable, length: number | null}} source */
  update(source) {
    this.#source = source
    const count = this.#columns * this.#rows
    if (count === 0 || source.length === null) return
    const before = this.#stored.slice()
    coverage(source.ranges, source.length, count, this.#stored)
    const sent = [...source.flying].map((chunk) => [chunk.start, chunk.start + (chunk.sent ?? 0)])
    coverage(sent.filter(([start, end]) => start < end).sort((a, b) => a[0] - b[0]), source.length, count, this.#flying)
    const now = performance.now()
    for (let i = 0; i < count; i++) {
      if (this.#stored[i] > before[i] + 0.001 && !this.#fresh && !stillness.matches) this.#landed[i] = now
    }
    this.#fresh = false
    this.#draw()
  }

  /** Colours have changed. */
  repaint() {
    this.#draw()
  }

  close() {
    this.#sizes.disconnect()
    cancelAnimationFrame(this.#frame)
  }

  #measure() {
    const { clientWidth, clientHeight } = this.#canvas
    const root = parseFloat(getComputedStyle(document.documentElement).fontSize)
    this.#ratio = globalThis.devicePixelRatio || 1
    this.#rows = 6
    this.#pitch = (clientHeight + root / 8) / this.#rows
    this.#columns = Math.max(1, Math.floor((clientWidth + root / 8) / this.#pitch))
    this.#canvas.width = Math.round(clientWidth * this.#ratio)
    this.#canvas.height = Math.round(clientHeight * this.#ratio)
    const count = this.#columns * this.#rows
    this.#stored = new Float32Array(count)
    this.#flying = new Float32Array(count)
    this.#landed = new Float64Array(count)
    this.#fresh = true
    if (this.#source) this.update(this.#source)
  }

  #draw() {
    cancelAnimationFrame(this.#frame)
    this.#frame = requestAnimationFrame(() => this.#paint())
  }

  #paint() {
    const context = this.#context
    const style = getComputedStyle(this.#canvas)
    const [empty, stored, flying, glow] = ['--cell', '--stored', '--flying', '--glow'].map((name) => style.getPropertyValue(name))
    const now = performance.now()
    const gap = (this.#canvas.clientWidth * this.#ratio + 2) / this.#columns - this.#pitch * this.#ratio
    const step = this.#pitch * this.#ratio
    const across = step + Math.max(0, gap) // columns are spread, so that the grid ends where the card does
    let glowing = false
    context.clearRect(0, 0, this.#canvas.width, this.#canvas.height)
    for (let i = 0; i < this.#stored.length; i++) {
      const x = Math.round((i % this.#columns) * across)
      const y = Math.round(Math.floor(i / this.#columns) * step)
      const width = Math.round(across - 2 * this.#ratio)
      const height = Math.round(step - 2 * this.#ratio)
      const fill = (colour, share) => {
        context.globalAlpha = Math.min(share, 1)
        context.fillStyle = colour
        context.fillRect(x, y, width, height)
      }
      fill(empty, 1)
      if (this.#flying[i] > 0) fill(flying, this.#flying[i])
      if (this.#stored[i] > 0) fill(stored, 0.15 + 0.85 * this.#stored[i])
      const heat = this.#landed[i] ? 1 - (now - this.#landed[i]) / GLOW : 0
      if (heat > 0) {
        glowing = true
        fill(glow, heat * 0.85)
      }
    }
    context.globalAlpha = 1
    if (glowing) this.#draw()
  }
}

const stillness = globalThis.matchMedia?.('(prefers-reduced-motion: reduce)') ?? { matches: false }
