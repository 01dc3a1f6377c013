// What the page says of an upload.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Board } from '../../../server/holdfast_server/page/board.js'

const STATE = {
  id: 'a', name: 'film.mkv', state: 'verifying', length: 10, received: 10, digests: {}, error: null,
  created: '2026-01-01T00:00:00.000Z', updated: '2026-01-01T00:00:10.000Z',
} // prettier-ignore

test('an upload is shown at the step that the server says, also when this page has sent it', () => {
  for (const upload of [null, { state: 'verifying', digest: 'ab', held: false, retryAt: null }]) {
    const item = new Board().item('a')
    item.upload = upload
    item.applyState({ ...STATE, progress: { current_step: 'verifying' } })
    assert.deepEqual([item.steps(), item.describe(0).words], [{ done: 1, current: 1 }, 'Verifying'])
    item.applyState({ ...STATE, progress: { current_step: 'publishing' } })
    assert.deepEqual([item.steps(), item.describe(0).words], [{ done: 2, current: 2 }, 'Publishing'])
  }
})

test('what this page has sent whole is being verified, before the server says so', () => {
  const item = new Board().item('a')
  item.upload = { state: 'verifying', digest: 'ab', held: false, retryAt: null }
  item.applyState({ ...STATE, state: 'receiving', progress: { current_step: 'receiving' } })
  assert.deepEqual([item.steps(), item.describe(0).words], [{ done: 1, current: 1 }, 'Verifying'])
})

test('only what is on its way is remembered second by second', () => {
  const board = new Board()
  const [going, resting] = ['a', 'b'].map((id) => board.item(id))
  going.applyState({ ...STATE, id: 'a', state: 'receiving', progress: { current_step: 'receiving' } })
  resting.applyState({ ...STATE, id: 'b', state: 'receiving', progress: { current_step: 'receiving' } })
  going.speed = 7
  const start = Date.parse(STATE.updated)
  for (let i = 0; i < 60; i++) {
    going.moved = start + 1000 * i
    assert.equal(board.sample(start + 1000 * i), 7)
  }
  assert.deepEqual([going.series.points.length, resting.series.points.length], [60, 0])
})

test('an upload of this page is seen once: before it has a URL, with one, and with another one', () => {
  const board = new Board()
  const upload = { url: null, state: 'sending', received: 0, size: 10, file: { name: 'film.mkv' } }
  const first = board.own(upload)
  upload.url = 'http://here/files/a'
  assert.equal(board.own(upload), first, 'what was seen of it is kept')
  first.received = 5
  upload.url = null // the server has lost it
  const second = board.own(upload)
  assert.deepEqual([[...board.items.values()], second.bytes], [[second], 0])
  upload.url = 'http://here/files/b'
  assert.equal(board.own(upload), second)
  assert.deepEqual([...board.items.keys()], ['b'])
})

test('what the server has told of an upload before this page knows its URL is kept', () => {
  const board = new Board()
  const upload = { url: null, state: 'sending', received: 0, size: 10, file: { name: 'film.mkv' } }
  board.own(upload)
  const told = board.item('a')
  upload.url = 'http://here/files/a'
  assert.equal(board.own(upload), told)
  assert.equal(board.items.size, 1)
})
