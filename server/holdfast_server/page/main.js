// The page: puts together what it sends, what the server tells, and what can be seen.
//
// Rule of this file: what happens is written to the board at once, and shown with the next frame of the screen; a reader is
// told of ends and failures, not of every step.

import { Board, idOf, Series } from './board.js'
import { Card, Row } from './card.js'
import { parts, size, speed } from './format.js'
import { Live } from './live.js'
import { ask, chosen, dropped, hasDialogs } from './pick.js'
import { Plot } from './plot.js'
import { Transfers } from './transfers.js'

const ROOT = new URL('..', import.meta.url)
const TOKEN = 'holdfast-token'
const MOST_CARDS = 60
const at = (id) => document.getElementById(id)

const board = new Board()
const views = new Map()
const total = new Series(600)
const unsure = new Set()
let summed = { speed: 0, until: 0 }

// The credential.

const token = () => sessionStorage.getItem(TOKEN)
const headers = () => (token() === null ? {} : { Authorization: `Bearer ${token()}` })

function askCredential(why) {
  at('credential').hidden = false
  if (at('ask').open) return
  if (why) at('ask-why').textContent = why
  at('ask-forget').hidden = token() === null
  at('token').value = ''
  at('ask').showModal()
}

at('credential').addEventListener('click', () => askCredential())
at('ask').addEventListener('close', () => {
  const given = at('token').value.trim()
  at('token').value = ''
  refused = false
  live.topics = ['all']
  if (at('ask').returnValue === 'forget') sessionStorage.removeItem(TOKEN)
  else if (at('ask').returnValue === 'use' && given) sessionStorage.setItem(TOKEN, given)
  else return
  at('credential').hidden = false
  live.retry()
  readLists()
  for (const { upload } of board.items.values()) {
    if (upload?.state === 'failed' && upload.error.status === 401) transfers.resume(upload)
  }
})

async function read(path) {
  const answer = await fetch(new URL(path, ROOT), { headers: headers(), cache: 'no-store' })
  if (answer.status === 401) askCredential((await answer.json().catch(() => null))?.detail)
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`)
  return answer.json()
}

// What this page sends.

const transfers = new Transfers(new URL('files', ROOT), headers)

function ownItem(upload) {
  const item = board.own(upload)
  item.href = upload.url
  return item
}

transfers.addEventListener('add', ({ detail: upload }) => {
  ownItem(upload)
  render()
})
transfers.addEventListener('change', ({ detail: upload }) => {
  const item = ownItem(upload)
  if (refused && live.state === 'waiting' && upload.url !== null && !upload.watched) {
    upload.watched = true
    narrow() // now there is something to watch
  }
  if (upload.state === 'cancelled') {
    board.remove(item.id)
  } else if (upload.state === 'failed' && upload.told !== upload.error) {
    upload.told = upload.error
    tell(`${item.name}: ${upload.error.message}`)
    if (upload.error.status === 401) askCredential(upload.error.message)
  } else if (upload.state === 'complete' && upload.told !== 'complete') {
    upload.told = 'complete'
    tell(`${item.name} is complete`)
  }
  render()
})
transfers.addEventListener('rest', () => {
  for (const item of board.items.values()) item.record = null
  for (const record of transfers.resting.values()) {
    const item = board.item(idOf(record.url))
    item.record = record
    item.name ||= record.name
    item.length ??= record.size
  }
  render()
})

async function take(files) {
  try {
    for await (const each of files) transfers.add(each)
  } catch (error) {
    notice(`Some of it cannot be read: ${error.message}`)
  }
}

async function act(name, item, event) {
  try {
    if (name === 'download') await download(item, event)
    else if (name === 'pause') transfers.pause(item.upload)
    else if (name === 'resume') transfers.resume(item.upload)
    else if (name === 'wake' && !(await transfers.wake(item.record))) again(item)
    else if (name === 'again') again(item)
    else if (name === 'cancel' || name === 'drop') await cancel(item)
  } catch (error) {
    if (error.name !== 'AbortError') notice(`${item.name}: ${error.message}`)
  }
  render()
}

/** A link cannot carry a credential: with one, the file is fetched, and written where the user says if the browser can. */
async function download(item, event) {
  if (token() === null) return
  event.preventDefault()
  const target = 'showSaveFilePicker' in globalThis ? await showSaveFilePicker({ suggestedName: item.name }) : null
  const answer = await fetch(item.href, { headers: headers() })
  if (!answer.ok) throw new Error(`The server answered ${answer.status}.`)
  if (target) {
    await answer.body.pipeTo(await target.createWritable())
    return
  }
  const link = document.createElement('a')
  link.href = URL.createObjectURL(await answer.blob())
  link.download = item.name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
}

async function cancel(item) {
  const stored = item.bytes > 0 ? ` ${size(item.bytes)} that the server has stored will be removed.` : ''
  if (!confirm(`Cancel ${item.name}?${stored}`)) return
  if (item.upload) await transfers.cancel(item.upload)
  else await transfers.drop(item.record)
  board.remove(item.id)
}

function again(item) {
  notice(`Choose ${item.record.path} again (${size(item.record.size)}), and it goes on where it stopped.`)
  at('files').click()
}

function choose(folder) {
  notice(null)
  if (hasDialogs) take(ask(folder))
  else at(folder ? 'folder' : 'files').click()
}

at('choose-files').addEventListener('click', () => choose(false))
at('choose-folder').addEventListener('click', () => choose(true))
for (const id of ['files', 'folder']) {
  at(id).addEventListener('change', ({ target }) => {
    notice(null)
    take([...chosen(target)])
    target.value = '' // the same file can be chosen again
  })
}
at('drop-note').textContent = hasDialogs
  ? 'They are verified on the way, and go on after a reload or a broken connection.'
  : 'They are verified on the way. After a reload, choose or drop the same file again, and it goes on where it stopped.'

let depth = 0
addEventListener('dragenter', (event) => {
  if (!event.dataTransfer.types.includes('Files')) return
  depth += 1
  document.body.classList.add('over')
})
addEventListener('dragleave', () => {
  depth = Math.max(0, depth - 1)
  if (depth === 0) document.body.classList.remove('over')
})
addEventListener('dragover', (event) => event.preventDefault())
addEventListener('drop', (event) => {
  event.preventDefault()
  depth = 0
  document.body.classList.remove('over')
  notice(null)
  take(dropped(event.dataTransfer))
})

// What the server tells.

const live = new Live(ROOT, token, ['all'])

live.addEventListener('change', () => {
  if (live.state === 'live' || live.state === 'waiting') {
    const words = live.state === 'live' ? 'Connected' : 'Not connected'
    if (at('link').dataset.state !== live.state && (live.state === 'waiting' || at('link').dataset.lost)) tell(words)
    at('link').toggleAttribute('data-lost', live.state === 'waiting')
    at('link').dataset.state = live.state
  }
  if (live.state === 'waiting' && live.until > Date.now()) readLists() // it may be only the live part that does not get through
  showLink()
})
live.addEventListener('unauthenticated', () => askCredential())
live.addEventListener('refused', narrow)

/** Who may not watch everything watches the owners and projects of what is in the list, which has what may be seen. */
let refused = false
async function narrow() {
  refused = true
  const { uploads } = await read('api/uploads?limit=100').catch(() => ({ uploads: [] }))
  const topics = new Set()
  for (const { owner, project } of uploads) {
    if (project) topics.add(`project:${project}`)
    if (owner) topics.add(`owner:${owner}`)
  }
  if (topics.size === 0 || `${[...topics]}` === `${live.topics}`) return
  live.topics = [...topics].slice(0, 128)
  live.retry()
}
live.addEventListener('frame', ({ detail: frame }) => {
  switch (frame.type) {
    case 'subscribed':
      unsure.clear()
      if (frame.payload.recovered !== true) {
        for (const item of board.items.values()) if (item.id && !item.isOver) unsure.add(item.id)
        readLists()
      }
      break
    case 'synced':
      if (!frame.payload.more) for (const id of unsure) if (typeof id === 'string') readState(id)
      unsure.clear()
      break
    case 'status':
    case 'progress':
      heard(frame)
      break
    case 'sum':
      if (live.topics.length === 1) summed = { speed: frame.payload.speed ?? 0, until: Date.now() + 2500 }
      break
    default:
  }
})

function heard({ type, task_id: id, payload }) {
  unsure.delete(id)
  if (payload.status === 'terminated') {
    const own = board.items.get(id)
    if (own?.upload?.running !== true) board.remove(id)
    readTotals()
    render()
    return
  }
  const known = board.items.has(id)
  const item = board.item(id)
  item.apply(payload)
  item.href ??= new URL(`files/${id}`, ROOT).href
  if (!known && !item.isOver) readHistory(item)
  if (type === 'status') {
    if (payload.event === 'complete' || payload.event === 'failed') {
      if (!item.upload) tell(`${item.name} ${payload.event === 'complete' ? 'is complete' : 'has failed'}`)
      readState(id)
    }
    readTotals()
  }
  render()
}

function applyState(state) {
  const item = board.item(state.id)
  item.applyState(state)
  item.href = new URL(state.url, ROOT).href
  return item
}

async function readState(id) {
  try {
    applyState(await read(`api/uploads/${id}?limit=1`))
  } catch {
    if (!board.items.get(id)?.upload) board.remove(id)
  }
  render()
}

async function readLists() {
  readTotals()
  const pages = ['complete', 'failed', 'receiving', 'verifying'].map((state) => read(`api/uploads?state=${state}&limit=40`))
  for (const page of await Promise.allSettled(pages)) {
    if (page.status === 'fulfilled') page.value.uploads.forEach(applyState)
  }
  render()
}

async function readHistory(item) {
  const { samples } = await read(`api/uploads/${item.id}/history`).catch(() => ({ samples: [] }))
  const kept = item.series.points
  item.series.points = []
  for (const sample of samples) item.series.push(Date.parse(sample.timestamp) / 1000, sample.speed ?? 0)
  for (const [when, value] of kept) item.series.push(when, value)
}

let totals = null
function readTotals() {
  totals ??= setTimeout(async () => {
    totals = null
    const stats = await read('api/stats').catch(() => null)
    if (stats === null) return
    for (const state of ['receiving', 'verifying', 'complete', 'failed']) {
      at(`count-${state}`).textContent = (stats.uploads[state] ?? 0).toLocaleString('en')
    }
    at('count-failed').parentElement.classList.toggle('bad', (stats.uploads.failed ?? 0) > 0)
    at('count-bytes').textContent = size(stats.bytes.received ?? 0)
    at('count-watching').textContent = (stats.connections.total ?? 0).toLocaleString('en')
  }, 300)
}

/** Ranges of uploads of others, for as long as their cards can be seen: at most a twentieth of the time goes into asking. */
const seen = new Set()
const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) seen.add(target.view)
    else seen.delete(target.view)
  }
  lookAtRanges()
})
let looking = false

async function lookAtRanges() {
  if (looking || document.hidden) return
  looking = true
  for (const { item } of seen) {
    if (item.upload || item.rangesAt === item.received || item.isOver || performance.now() < (item.rangesAfter ?? 0)) continue
    const began = performance.now()
    const received = item.received
    const stored = []
    try {
      for (let after = 0; after !== null; ) {
        const page = await read(`api/uploads/${item.id}?limit=10000&after=${after}`)
        for (const [offset, length] of page.ranges) {
          const last = stored[stored.length - 1]
          if (last && last[1] >= offset) last[1] = Math.max(last[1], offset + length)
          else stored.push([offset, offset + length])
        }
        after = page.next
      }
      item.stored = stored
      item.rangesAt = received
    } catch {
      // it is asked for again
    }
    item.rangesAfter = performance.now() + Math.max(700, 20 * (performance.now() - began))
    render()
  }
  looking = false
}

// What can be seen.

let rendering = 0
function render() {
  rendering ||= requestAnimationFrame(() => {
    rendering = 0
    show()
  })
}

function show() {
  const now = Date.now()
  const { now: moving, rest, over } = board.sorted(now)
  const cards = moving.slice(0, MOST_CARDS)
  const focused = document.activeElement?.closest('.card, .row')?.closest('li')?.view
  const kept = new Set([...cards, ...rest.slice(0, MOST_CARDS), ...over])
  for (const [item, view] of views) {
    const kind = item.place(now) === 'now' ? Card : Row
    if (kept.has(item) && view instanceof kind) continue
    sight.unobserve(view.element)
    seen.delete(view)
    view.close()
    views.delete(item)
  }
  list(at('now'), cards, now)
  list(at('rest'), rest.slice(0, MOST_CARDS), now)
  list(at('over'), over, now)
  if (focused && !focused.element.isConnected) {
    // What had the focus has moved to another place of the page: so does the focus.
    views.get(focused.item)?.element.querySelector('a, button')?.focus()
  }
  at('now-none').hidden = moving.length > 0
  at('now-many').textContent = moving.length > 1 ? moving.length.toLocaleString('en') : ''
  at('now-more').hidden = moving.length <= MOST_CARDS
  at('now-more').textContent = `and ${(moving.length - MOST_CARDS).toLocaleString('en')} more`
  at('rest-section').hidden = rest.length === 0
  at('rest-many').textContent = rest.length > 1 ? rest.length.toLocaleString('en') : ''
  at('over-section').hidden = over.length === 0
  const own = moving.filter((item) => item.upload?.running)
  const bytes = (of) => own.reduce((sum, item) => sum + of(item), 0)
  const share = Math.floor((100 * bytes((item) => item.bytes)) / Math.max(1, bytes((item) => item.length)))
  document.title = own.length > 0 ? `${share} % - Holdfast` : 'Holdfast'
}

/** Brings the elements of a list into the order of its items, and touches none that is in its place. */
function list(element, items, now) {
  items.forEach((item, i) => {
    let view = views.get(item)
    if (!view) {
      view = item.place(now) === 'now' ? new Card(item, act) : new Row(item, act)
      view.element.view = view
      views.set(item, view)
      if (view instanceof Card) sight.observe(view.element)
    }
    if (element.children[i] !== view.element) element.insertBefore(view.element, element.children[i] ?? null)
    view.show(now)
    if (!view.ticked) view.tick(now)
    view.ticked = true
  })
}

function showLink() {
  const left = Math.max(0, Math.ceil(((live.until ?? 0) - Date.now()) / 1000))
  const words = {
    live: 'Live',
    connecting: at('link').dataset.state === 'waiting' ? 'Not connected, trying now' : 'Connecting',
    waiting: refused ? 'Nothing to watch yet' : `Not connected${left > 30 ? '' : `, trying again in ${left} s`}`,
    closed: 'Closed',
  }[live.state]
  if (at('link-words').textContent !== words) at('link-words').textContent = words
}

const tide = new Plot(at('tide'))

setInterval(() => {
  const now = Date.now()
  let together = 0
  for (const item of board.items.values()) {
    together += item.pace
    if (!item.isOver) item.series.push(now / 1000, item.pace)
  }
  const rate = now < summed.until ? Math.max(summed.speed, 0) : together
  total.push(now / 1000, rate)
  const [number, unit] = parts(rate)
  at('rate').textContent = number
  at('rate-unit').textContent = `${unit}/s`
  at('tide-peak').textContent = total.peak > 1 ? `peak ${speed(total.peak)}` : ''
  tide.update(total, now / 1000)
  show()
  for (const view of views.values()) view.tick(now)
  showLink()
  lookAtRanges()
  if (Math.floor(now / 1000) % 10 === 0) readTotals()
}, 1000)

/** What a reader is told: at most one message in two seconds, several in one. */
const news = []
let telling = null
function tell(message) {
  news.push(message)
  telling ??= setTimeout(() => {
    telling = null
    at('news').textContent = `${news.slice(0, 3).join('. ')}${news.length > 3 ? `, and ${news.length - 3} more` : ''}.`
    news.length = 0
  }, 2000)
}

function notice(text) {
  at('notice').hidden = text === null
  at('notice').textContent = text ?? ''
}

matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  tide.repaint()
  for (const view of views.values()) {
    view.map?.repaint()
    view.plot?.repaint()
  }
})
addEventListener('online', () => live.retry())
document.addEventListener('visibilitychange', () => lookAtRanges())

readLists()
transfers.recall()
