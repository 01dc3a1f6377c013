// Speed over time: a line, and the area below it.
//
// Rule of this file: the right edge is now, the left edge `window` seconds ago; the scale ends at a round number above the
// peak, so that it does not change with every sample.

import { KIB } from './planner.js'

/** 1, 2 or 5 times a power of ten, in the binary unit in which the number will be read, or 1 of the next unit. */
export function ceiling(peak) {
  let unit = 1
  while (peak / unit >= 999.5) unit *= KIB
  const value = Math.max(peak / unit, unit === 1 ? 100 : 1)
  const power = 10 ** Math.floor(Math.log10(value))
  const factor = [1, 2, 5, 10].find((each) => each * power >= value * 0.999)
  return factor * power < 1000 ? factor * power * unit : KIB * unit
}

export class Plot {
  /** @param {HTMLCanvasElement} canvas its size is that of the style sheet */
  constructor(canvas) {
    this.#canvas = canvas
    this.#sizes = new ResizeObserver(() => this.#draw())
    this.#sizes.observe(canvas)
  }

  #canvas
  #sizes
  #frame = 0
  #series = null
  #now = 0

  /** @param {{points: [number, number][], window: number, peak: number}} series; `now` in seconds */
  update(series, now) {
    this.#series = series
    this.#now = now
    this.#draw()
  }

  repaint() {
    this.#draw()
  }

  close() {
    this.#sizes.disconnect()
    cancelAnimationFrame(this.#frame)
  }

  #draw() {
    cancelAnimationFrame(this.#frame)
    this.#frame = requestAnimationFrame(() => this.#paint())
  }

  #paint() {
    if (!this.#series) return
    const canvas = this.#canvas
    const ratio = globalThis.devicePixelRatio || 1
    const [width, height] = [canvas.clientWidth, canvas.clientHeight]
    canvas.width = Math.round(width * ratio)
    canvas.height = Math.round(height * ratio)
    const context = canvas.getContext('2d')
    context.scale(ratio, ratio)
    const style = getComputedStyle(canvas)
    const colour = (name) => style.getPropertyValue(name)
    const { points, window, peak } = this.#series
    const top = ceiling(peak)
    const x = (at) => width - ((this.#now - at) / window) * width
    const y = (value) => height - 1 - (value / top) * (height - 3)

    context.strokeStyle = colour('--line')
    context.lineWidth = 1
    context.beginPath()
    for (const level of [0, 0.5, 1]) {
      const at = Math.round(y(level * top)) + 0.5
      context.moveTo(0, at)
      context.lineTo(width, at)
    }
    context.stroke()
    if (points.length < 2) return

    const line = new Path2D()
    points.forEach(([at, value], i) => (i ? line.lineTo(x(at), y(value)) : line.moveTo(x(at), y(value))))
    const area = new Path2D(line)
    area.lineTo(x(points[points.length - 1][0]), y(0))
    area.lineTo(x(points[0][0]), y(0))
    context.globalAlpha = 0.16
    context.fillStyle = colour('--stored')
    context.fill(area)
    context.globalAlpha = 1
    context.strokeStyle = colour('--stored')
    context.lineWidth = 1.5
    context.lineJoin = 'round'
    context.stroke(line)
  }
}
