// The page: puts together who is there, what this page sends, what the server tells, and what can be seen.
//
// Rule of this file: what happens is written to the board, and the screen shows it. What the user does comes in here.
//
// The other files, and who uses whom. What stands below knows nothing of what stands above it.
//
//   what is seen          screen.js  the whole page: lists, head, words for a reader
//                         card.js  one upload, with map.js (its ranges) and plot.js (its speed); elements.js
//                         board.js  what is known of each upload, and in which words: values only; format.js
//   what the server tells feed.js  to the board, from live.js (WebSocket or events) and the API; sight.js (ranges)
//   who is there          access.js  what may be done, and the dialog; credential.js  the token or the signed URL
//   what is sent          transfers.js  the queue, and what is remembered of it (journal.js); pick.js  drops and dialogs
//                         upload.js  one file: a module for other pages, too, with all that follows
//                           planner.js  what to send next, how large, when again (ranges.js); connections.js  whose turn
//                           remote.js  what is asked of the server, in either dialect; request.js  one request
//                           fields.js  values of fields; errors.js  why it does not go on
//                           hashing.js  asks the worker hasher.js, which has sha256.js

import { Access } from './access.js'
import { Board, idOf } from './board.js'
import { Credential } from './credential.js'
import { at } from './elements.js'
import { refusalOf } from './errors.js'
import { Feed } from './feed.js'
import { size } from './format.js'
import { ask, chosen, dropped, hasDialogs } from './pick.js'
import { Screen } from './screen.js'
import { Sight } from './sight.js'
import { Transfers } from './transfers.js'

at('late').remove() // all parts of the page are there

const ROOT = new URL('..', import.meta.url)

const board = new Board()
const credential = new Credential(ROOT)
const access = new Access(credential)
const transfers = new Transfers(credential, ROOT)
const feed = new Feed(board, access, credential)
const sight = new Sight((path) => access.read(path), () => screen.render())
const screen = new Screen({ board, sight, transfers, act })

// Who is there.

access.addEventListener('leaving', () => transfers.hold())
access.addEventListener('trouble', () => screen.showLink(access, feed))
access.addEventListener('change', () => {
  screen.showFor(access.who, credential.exists ? null : new URL('files', ROOT).href)
  feed.become(access.who)
  if (access.who) transfers.become(access.who.owner)
})

// What this page sends.

/** What an upload is told by something else that answers, which may lead where a page must not follow it. */
const DOUBTFUL = new Set(['status-200', 'unreachable'])

function ownItem(upload) {
  const item = board.own(upload)
  item.wanted = false
  if (upload.url !== null) item.href = feed.href(item.id)
  return item
}

transfers.addEventListener('add', ({ detail: upload }) => {
  ownItem(upload)
  screen.render()
})
transfers.addEventListener('change', ({ detail: upload }) => {
  const item = ownItem(upload)
  // From its first byte on it counts for the link that it was made with; what is refused may have met a link that is used up.
  const counts = upload.state === 'failed' ? upload.error : upload.received > 0 || upload.state === 'complete'
  if (counts && counts !== upload.counted) {
    upload.counted = counts
    access.recount()
  }
  if (upload.error !== upload.doubted) {
    upload.doubted = upload.error
    if (DOUBTFUL.has(upload.error?.code)) access.check()
  }
  if (upload.state === 'cancelled') {
    board.remove(item.id)
  } else if (upload.state === 'failed' && upload.told !== upload.error) {
    upload.told = upload.error
    screen.tell(`${item.name}: ${upload.error.message}`)
    if (upload.error.status === 401) access.refuse(upload.error.message)
  } else if (upload.state === 'complete' && upload.told !== 'complete') {
    upload.told = 'complete'
    screen.tell(`${item.name} is complete`)
  }
  screen.render()
})
transfers.addEventListener('rest', () => {
  for (const item of board.items.values()) item.record = null
  for (const record of transfers.resting.values()) {
    const item = board.item(idOf(record.url))
    item.record = record
    item.name ||= record.name
    item.length ??= record.size
  }
  screen.render()
})

async function take(files) {
  screen.notice(null)
  const unread = []
  try {
    for await (const each of files) {
      if (each.error) unread.push(each.path)
      else transfers.add(each)
    }
    if (unread.length > 0) screen.notice(`Not sent, because it cannot be read: ${listed(unread)}`)
  } catch (error) {
    screen.notice(error.message)
  }
}

/** The first of them, and how many more there are. */
function listed(names) {
  const more = names.length - 5
  return `${names.slice(0, 5).join(', ')}${more > 0 ? `, and ${more} more` : ''}.`
}

/** What the buttons do: those of one upload (`item`), and those of all that is sent from here. */
async function act(name, item, event) {
  try {
    if (name === 'download') await download(item, event)
    else if (name === 'credential') access.ask()
    else if (name === 'pause') transfers.pause(item.upload)
    else if (name === 'resume') transfers.resume(item.upload)
    else if (name === 'wake' && !(await transfers.wake(item.record))) again(item)
    else if (name === 'again') again(item)
    else if (name === 'cancel' || name === 'drop') await cancel(item)
    else if (name === 'pause-all') transfers.pauseAll()
    else if (name === 'resume-all') transfers.resumeAll()
    else if (name === 'cancel-all') await cancelAll()
  } catch (error) {
    if (error.name !== 'AbortError') screen.notice(`${item ? `${item.name}: ` : ''}${error.message}`)
  }
  screen.render()
}

/** A link cannot carry a token: with one, the file is fetched, and written where the user says if the browser can. */
async function download(item, event) {
  if (credential.token === null) return
  event.preventDefault()
  const target = 'showSaveFilePicker' in globalThis ? await showSaveFilePicker({ suggestedName: item.name }) : null
  const answer = await fetch(item.href, { headers: credential.headers() })
  if (!answer.ok) throw await refusalOf(answer)
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
  try {
    if (item.upload) await transfers.cancel(item.upload)
    else await transfers.drop(item.record)
  } catch (error) {
    throw item.upload ? new Error(`It is sent no more, but the server keeps what it has. ${error.message}`) : error
  }
  board.remove(item.id)
}

async function cancelAll() {
  if (!confirm(`Cancel ${transfers.batch.open} files? What the server has stored of them will be removed.`)) return
  try {
    await transfers.cancelAll()
  } catch (error) {
    throw new Error(`They are sent no more, but the server keeps some of what it has. ${error.message}`)
  }
}

function again(item) {
  const { path, size: length } = item.record ?? { path: item.name, size: item.length }
  at('files').click()
  screen.notice(`Choose ${path}${length === null ? '' : ` (${size(length)})`}, and it goes on where it stopped.`)
}

function choose(folder) {
  screen.notice(null)
  if (hasDialogs) take(ask(folder))
  else at(folder ? 'folder' : 'files').click()
}

at('choose-files').addEventListener('click', () => choose(false))
at('choose-folder').addEventListener('click', () => choose(true))
for (const id of ['files', 'folder']) {
  at(id).addEventListener('change', ({ target }) => {
    take([...chosen(target)])
    target.value = '' // the same file can be chosen again
  })
}

// Closed in the middle, the page would send no more, and nobody would know. Where nothing moves there is nothing to ask.
addEventListener('beforeunload', (event) => {
  if (transfers.sends) event.preventDefault()
})

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
  take(dropped(event.dataTransfer))
})

// What the server tells.

feed.addEventListener('change', () => screen.render())
feed.addEventListener('read', () => screen.showComplete())
feed.addEventListener('link', () => screen.showLink(access, feed))
feed.addEventListener('totals', ({ detail: stats }) => screen.showTotals(stats))
feed.addEventListener('over', ({ detail: item }) => {
  if (!item.upload) screen.tell(`${item.name} ${item.status === 'complete' ? 'is complete' : 'has failed'}`)
})

setInterval(() => {
  const now = Date.now()
  screen.tick(now, feed.sum)
  screen.showLink(access, feed)
  feed.tick(now)
  sight.look()
}, 1000)
addEventListener('online', () => {
  if (access.trouble) access.find()
  else feed.live.retry()
})
// Whoever comes back may have logged in meanwhile.
document.addEventListener('visibilitychange', () => {
  if (access.trouble && !document.hidden) access.find()
})

access.begin()
