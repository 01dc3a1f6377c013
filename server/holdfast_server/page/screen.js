// What can be seen: the board as elements, and the words that a reader is told.
//
// Rule of this file: what has happened is shown with the next frame of the screen; a reader is told of ends and failures,
// not of every step.

import { Series } from './board.js'
import { Card, Row } from './card.js'
import { parts, size, speed } from './format.js'
import { Plot } from './plot.js'

const MOST_CARDS = 60
const at = (id) => document.getElementById(id)

export class Screen {
  /**
   * @param {Board} board
   * @param {Sight} sight is told which cards there are
   * @param {(name: string, item: Item, event?: Event) => void} act what the buttons of an upload do
   */
  constructor(board, sight, act) {
    this.#board = board
    this.#sight = sight
    this.#act = act
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
      this.#tide.repaint()
      for (const view of this.#views.values()) {
        view.map?.repaint()
        view.plot?.repaint()
      }
    })
  }

  #board
  #sight
  #act
  #views = new Map()
  #total = new Series(600)
  #tide = new Plot(at('tide'))
  #frame = 0
  #news = []
  #telling = null

  /** Something is to be shown. */
  render() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0
      this.#show()
    })
  }

  #show() {
    const now = Date.now()
    const { now: moving, next, rest, over } = this.#board.sorted(now)
    const cards = moving.slice(0, MOST_CARDS)
    const focused = document.activeElement?.closest('.card, .row')?.closest('li')?.view
    const kept = new Set([...cards, ...next.slice(0, MOST_CARDS), ...rest.slice(0, MOST_CARDS), ...over])
    for (const [item, view] of this.#views) {
      const kind = item.place(now) === 'now' ? Card : Row
      if (kept.has(item) && view instanceof kind) continue
      this.#sight.leave(view)
      view.close()
      this.#views.delete(item)
    }
    this.#list(at('now'), cards, now)
    this.#list(at('next'), next.slice(0, MOST_CARDS), now)
    this.#list(at('rest'), rest.slice(0, MOST_CARDS), now)
    this.#list(at('over'), over, now)
    if (focused && !focused.element.isConnected) {
      // What had the focus has moved to another place of the page: so does the focus.
      this.#views.get(focused.item)?.element.querySelector('a, button')?.focus()
    }
    at('now-none').hidden = moving.length + next.length > 0
    at('now-many').textContent = moving.length > 1 ? moving.length.toLocaleString('en') : ''
    at('now-more').hidden = moving.length <= MOST_CARDS
    at('now-more').textContent = `and ${(moving.length - MOST_CARDS).toLocaleString('en')} more`
    for (const [name, items] of Object.entries({ next, rest })) {
      at(`${name}-section`).hidden = items.length === 0
      at(`${name}-many`).textContent = items.length > 1 ? items.length.toLocaleString('en') : ''
    }
    at('over-section').hidden = over.length === 0
    const own = moving.filter((item) => item.upload?.running)
    const bytes = (of) => own.reduce((sum, item) => sum + of(item), 0)
    const share = Math.floor((100 * bytes((item) => item.bytes)) / Math.max(1, bytes((item) => item.length)))
    document.title = own.length > 0 ? `${share} % - Holdfast` : 'Holdfast'
  }

  /** Brings the elements of a list into the order of its items, and touches none that is in its place. */
  #list(element, items, now) {
    items.forEach((item, i) => {
      let view = this.#views.get(item)
      if (!view) {
        view = item.place(now) === 'now' ? new Card(item, this.#act) : new Row(item, this.#act)
        view.element.view = view
        this.#views.set(item, view)
        if (view instanceof Card) this.#sight.watch(view)
      }
      if (element.children[i] !== view.element) element.insertBefore(view.element, element.children[i] ?? null)
      view.show(now)
      if (!view.ticked) view.tick(now)
      view.ticked = true
    })
  }

  /** Once a second. `sum` is the speed of everybody's uploads, null if only that of those on the board is known. */
  tick(now, sum) {
    let together = 0
    for (const item of this.#board.items.values()) {
      together += item.pace
      if (!item.isOver) item.series.push(now / 1000, item.pace)
    }
    const rate = sum ?? together
    this.#total.push(now / 1000, rate)
    const [number, unit] = parts(rate)
    at('rate').textContent = number
    at('rate-unit').textContent = `${unit}/s`
    at('tide-peak').textContent = this.#total.peak > 1 ? `peak ${speed(this.#total.peak)}` : ''
    this.#tide.update(this.#total, now / 1000)
    this.#show()
    for (const view of this.#views.values()) view.tick(now)
  }

  /** The figures of L-STATS-1. */
  showTotals(stats) {
    for (const state of ['receiving', 'verifying', 'complete', 'failed']) {
      at(`count-${state}`).textContent = (stats.uploads[state] ?? 0).toLocaleString('en')
    }
    at('count-failed').parentElement.classList.toggle('bad', (stats.uploads.failed ?? 0) > 0)
    at('count-bytes').textContent = size(stats.bytes.received ?? 0)
    at('count-watching').textContent = (stats.connections.total ?? 0).toLocaleString('en')
  }

  /** What there is to see for the one who asks: D-JSON-3. */
  showFor(who) {
    at('pulse').hidden = who === null || Boolean(who?.signature)
    at('counts').hidden = !who?.scopes.includes('watch')
    at('now-none').textContent = who?.scopes.includes('watch')
      ? 'Nothing is on its way. What anybody sends to this server shows here as it arrives.'
      : 'Nothing is on its way.'
  }

  /** Whether what is seen is what is so. */
  showLink({ state, until }, who) {
    const link = at('link')
    if (state === 'live' || state === 'waiting') {
      if (link.dataset.state !== state && (state === 'waiting' || link.hasAttribute('data-lost'))) {
        this.tell(state === 'live' ? 'Connected' : 'Not connected')
      }
      link.toggleAttribute('data-lost', state === 'waiting')
      link.dataset.state = state
    } else if (state === 'idle') {
      link.dataset.state = state
    }
    const left = Math.max(0, Math.ceil(((until ?? 0) - Date.now()) / 1000))
    const words = {
      live: 'Live',
      connecting: link.dataset.state === 'waiting' ? 'Not connected, trying now' : 'Connecting',
      waiting: `Not connected${left > 30 ? '' : `, trying again in ${left} s`}`,
      idle: unwatched(who),
    }[state]
    if (at('link-words').textContent !== words) at('link-words').textContent = words
  }

  /** What a reader is told: at most one message in two seconds, several in one. */
  tell(message) {
    this.#news.push(message.replace(/\.$/, ''))
    this.#telling ??= setTimeout(() => {
      this.#telling = null
      const more = this.#news.length - 3
      at('news').textContent = `${this.#news.slice(0, 3).join('. ')}${more > 0 ? `, and ${more} more` : ''}.`
      this.#news.length = 0
    }, 2000)
  }

  /** A sentence that stays until there is another one, or null for none. */
  notice(text) {
    at('notice').hidden = text === null
    at('notice').textContent = text ?? ''
  }
}

/** Why nothing is watched. */
function unwatched(who) {
  if (who === undefined) return 'Connecting'
  if (who === null) return 'Waits for a credential'
  return who.signature ? 'By a signed link' : 'Not live: this credential may not watch'
}
