// How an upload looks: a card while it is on its way, a row when it rests or is over.
//
// Rule of this file: names and messages come from others, so they become text and nothing else. An element is made once and
// changed where it stands, so that focus, selection and the place of a reader are kept.

import { put } from './elements.js'
import { ago, percent, size } from './format.js'
import { ChunkMap } from './map.js'
import { Plot } from './plot.js'

/** What can be done with an upload: its name for the page's `act`, and its label. */
function actions(item) {
  const own = item.upload
  // Once the server verifies there is nothing left to be stopped here.
  const isSent = own?.state === 'verifying' && own.digest !== null && own.retryAt === null
  if (own && !item.isOver && !isSent) {
    if (own.held || (own.state === 'failed' && own.error.isRefusal)) {
      return [['credential', 'Give a credential'], ...(own.held ? [] : [['cancel', 'Cancel']])]
    }
    if (own.state === 'paused' || own.state === 'failed') return [['resume', 'Go on'], ['cancel', 'Cancel']]
    if (own.state === 'waiting') return [['cancel', 'Cancel']]
    return [['pause', 'Pause'], ['cancel', 'Cancel']]
  }
  if (item.wanted && !item.isOver) return [['again', 'Choose the file']]
  if (item.record) return [[item.record.handle ? 'wake' : 'again', item.record.handle ? 'Go on' : 'Choose the file again'], ['drop', 'Cancel']]
  return []
}

class View {
  constructor(template, item, act) {
    this.element = document.getElementById(template).content.firstElementChild.cloneNode(true)
    this.item = item
    this.act = act
    this.part('name').id = `name-${++View.last}`
  }

  static last = 0
  #acts = ''

  part(name) {
    return this.element.querySelector(`.${name}`)
  }

  /** Buttons stay the same elements as long as what they do does. */
  showActions() {
    const found = actions(this.item)
    const key = found.map(([name]) => name).join()
    if (key === this.#acts) return
    this.#acts = key
    const focused = this.part('acts').contains(document.activeElement)
    this.part('acts').replaceChildren(
      ...found.map(([name, label]) => {
        const button = document.createElement('button')
        button.type = 'button'
        button.dataset.act = name
        button.textContent = label
        button.setAttribute('aria-describedby', this.part('name').id)
        button.addEventListener('click', () => this.act(name, this.item))
        return button
      }),
    )
    if (focused) this.part('acts').querySelector('button')?.focus()
  }

  showWords(now) {
    this.element.toggleAttribute('data-own', this.item.upload !== null)
    const { tone, words, detail } = this.item.describe(now)
    this.element.dataset.tone = tone
    put(this.part('words'), words)
    put(this.part('detail'), detail)
  }
}

export class Card extends View {
  constructor(item, act) {
    super('card', item, act)
    this.map = new ChunkMap(this.part('map'))
    this.plot = new Plot(this.part('plot'))
    this.part('percent').setAttribute('aria-labelledby', this.part('name').id)
    this.element.firstElementChild.setAttribute('aria-labelledby', this.part('name').id)
  }

  show(now) {
    const { item } = this
    put(this.part('name'), item.name)
    this.part('name').title = item.name
    this.showWords(now)
    this.showActions()
    const far = percent(item.bytes, item.length)
    const bar = this.part('percent')
    put(bar, far)
    if (item.length === null) bar.removeAttribute('aria-valuenow')
    else bar.setAttribute('aria-valuenow', parseInt(far, 10))
    put(this.part('tempo'), item.tempo())
    const { done, current } = item.steps()
    this.element.querySelectorAll('.steps li').forEach((step, i) => {
      step.toggleAttribute('data-done', i < done)
      if (i === current) step.setAttribute('aria-current', 'step')
      else step.removeAttribute('aria-current')
    })
    this.map.update(item)
    this.part('map').setAttribute('aria-label', `Map of the file: ${far || size(item.bytes)} stored`)
  }

  /** Once a second. */
  tick(now) {
    this.plot.update(this.item.series, now / 1000)
  }

  close() {
    this.map.close()
    this.plot.close()
    this.element.remove()
  }
}

export class Row extends View {
  constructor(item, act) {
    super('row', item, act)
  }

  show(now) {
    const { item } = this
    const name = this.part('name')
    if (item.status === 'complete' && item.href) {
      let link = name.querySelector('a')
      if (!link) {
        link = document.createElement('a')
        link.download = ''
        link.addEventListener('click', (event) => this.act('download', this.item, event))
        name.replaceChildren(link)
      }
      link.href = item.href
      put(link, item.name)
    } else {
      put(name, item.name)
    }
    name.title = item.name
    this.showWords(now)
    this.showActions()
    const digest = this.part('digest')
    put(digest, item.digest ? `sha-256 ${item.digest}` : '') // all of it, so that it can be copied; the style cuts it short
    digest.title = item.digest ?? ''
    const time = this.element.querySelector('time')
    const at = new Date(item.changed || item.started)
    time.dateTime = at.toISOString()
    time.title = at.toLocaleString()
    put(time, ago(at.getTime(), now))
  }

  tick(now) {
    this.show(now)
  }

  close() {
    this.element.remove()
  }
}
