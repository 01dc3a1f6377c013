// What can be seen: the board as elements, and the words that a reader is told.
//
// Rule of this file: what has happened is shown with the next frame of the screen; a reader is told of ends and failures,
// not of every step.

import { MOST_OVER, Series } from './board.js'
import { Card, Row } from './card.js'
import { at, put } from './elements.js'
import { duration, parts, percent, scale, size } from './format.js'
import { ceiling, Plot } from './plot.js'

/** Where the server answers everything but that. */
const NOT_LIVE =
  'Live progress does not get through to this page: what is seen is some seconds old. Uploads go on. Whoever runs what is before the server has to let /api/live or /api/events through, unbuffered.'

/** As many of each list are shown; of the rest it is said how many they are. */
const MOST = 60

export class Screen {
  /**
   * @param {{board: Board, sight: Sight, transfers: Transfers, act: (name: string, item?: Item, event?: Event) => void}} of
   *   `sight` is told which cards there are, `act` what was clicked
   */
  constructor({ board, sight, transfers, act }) {
    this.#board = board
    this.#sight = sight
    this.#transfers = transfers
    this.#act = act
    for (const id of ['all-toggle', 'all-cancel']) {
      at(id).addEventListener('click', ({ currentTarget }) => act(currentTarget.dataset.act))
    }
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
  #transfers
  #act
  #views = new Map()
  #complete = false
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
    const lists = this.#board.sorted(now)
    const shown = Object.entries(lists).map(([name, items]) => [name, items.slice(0, MOST)])
    const kept = new Set(shown.flatMap(([, items]) => items))
    const active = document.activeElement
    const focused = active?.closest('.card, .row')?.closest('li')?.view
    const list = focused?.element.parentElement.id
    for (const [item, view] of this.#views) {
      const kind = item.place(now) === 'now' ? Card : Row
      if (kept.has(item) && view instanceof kind) continue
      this.#sight.leave(view)
      view.close()
      this.#views.delete(item)
    }
    for (const [name, items] of shown) {
      this.#list(at(name), items, now)
      const { length } = lists[name]
      at(`${name}-section`).hidden = length === 0 && name !== 'now'
      put(at(`${name}-many`), length > 1 && name !== 'over' ? length.toLocaleString('en') : '')
      at(`${name}-more`).hidden = length <= MOST
      put(at(`${name}-more`), `and ${(length - MOST).toLocaleString('en')} more`)
    }
    put(at('over-many'), lists.over.length === MOST_OVER ? `the newest ${MOST_OVER}` : '')
    if (focused && document.activeElement !== active) this.#refocus(active, focused.item, list)
    at('now-none').hidden = lists.now.length + lists.next.length > 0
    document.body.classList.toggle('bare', this.#complete && kept.size === 0)
    this.#showBatch()
  }

  /**
   * What had the focus has been moved: it keeps it. Or it is there no more: then it is what can be done with the upload now;
   * and if that is nothing, the title of the list, since a key that was meant for one upload must not meet the next.
   */
  #refocus(active, item, list) {
    const title = [at(`${list}-title`), at('drop-title')].find((each) => each.offsetHeight > 0)
    const near = active.isConnected ? active : (this.#views.get(item)?.element.querySelector('a, button') ?? title)
    near.focus()
  }

  /** All that is sent from here, in one line, where it is more than one file. */
  #showBatch() {
    const { files, done, open, moving, size: whole, bytes, speed } = this.#transfers.batch
    const far = percent(bytes, whole)
    document.title = open > 0 ? `${far} - Holdfast` : 'Holdfast'
    at('all').hidden = files < 2 || open === 0
    if (at('all').hidden) return
    const left = speed < 1 ? '' : `, ${duration((whole - bytes) / speed)} left`
    put(at('all-words'), `${done} of ${files} files sent, ${far} of ${size(whole)}${left}`)
    const [name, label] = moving ? ['pause-all', 'Pause all'] : ['resume-all', 'Go on with all']
    at('all-toggle').dataset.act = name
    put(at('all-toggle'), label)
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
    const together = this.#board.sample(now)
    const rate = sum ?? together
    this.#total.push(now / 1000, rate)
    const [number, unit] = parts(rate)
    put(at('rate'), number)
    put(at('rate-unit'), `${unit}/s`)
    put(at('tide-scale'), this.#total.peak > 1 ? scale(ceiling(this.#total.peak)) : '')
    put(at('tide-since'), `${duration(this.#total.window)} ago`)
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

  /** What there is to see for the one who asks (D-JSON-3). `endpoint`: where files can be sent to from elsewhere, or null. */
  showFor(who, endpoint) {
    at('hint').hidden = endpoint === null || !who?.scopes.includes('create')
    put(at('hint-to'), `--to ${endpoint}`)
    at('pulse').hidden = who === null || Boolean(who?.signature)
    at('counts').hidden = !who?.scopes.includes('watch')
    const all = who?.scopes.includes('watch') ? ' What anybody sends to this server shows here as it arrives.' : ''
    put(at('now-none'), `Nothing is on its way.${all}`)
  }

  /** All that there was is on the board now: where nothing is to be seen, there is nothing. */
  showComplete() {
    this.#complete = true
    this.render()
  }

  /**
   * Whether what is seen is what is so, and if not, why.
   * @param {Access} access
   * @param {Feed} feed
   */
  showLink({ who, trouble, until: again }, { live, cut }) {
    const { state, until } = trouble ? { state: 'waiting', until: again } : live
    this.#showWhy(trouble, cut)
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
    document.body.classList.toggle('stale', link.hasAttribute('data-lost'))
    const left = Math.max(0, Math.ceil(((until ?? 0) - Date.now()) / 1000))
    const lost = cut ? 'Not live' : 'Not connected'
    const words = {
      live: 'Live',
      connecting: link.dataset.state === 'waiting' ? `${lost}, trying now` : 'Connecting',
      waiting: `${lost}${left > 30 ? '' : left === 0 ? ', trying now' : `, trying again in ${left} s`}`,
      idle: unwatched(who),
    }[state]
    put(at('link-words'), words)
  }

  #showWhy(trouble, cut) {
    at('why').hidden = trouble === null && !cut
    put(at('why-words'), trouble?.message ?? (cut ? NOT_LIVE : ''))
    at('why-there').hidden = trouble?.code !== 'elsewhere'
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
