// What the server tells, where it cannot be asked all the time.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { Board } from '../../../server/holdfast_server/page/board.js'
import { Feed, topics } from '../../../server/holdfast_server/page/feed.js'

const STATE = {
  id: 'a', name: 'film.mkv', state: 'complete', length: 10, received: 10, digests: { 'sha-256': '00ff' }, error: null,
  progress: { current_step: null }, created: '2026-01-01T00:00:00.000Z', updated: '2026-01-01T00:00:10.000Z',
} // prettier-ignore
const PAYLOAD = {
  name: 'film.mkv', owner: null, project: null, status: 'complete', event: 'complete', current_step: null, message: '', length: 10,
  received: 10, arriving: 0, speed: null, retries: 0, error: null, started: STATE.created, timestamp: STATE.updated,
} // prettier-ignore

function setUp(answer) {
  const board = new Board()
  const access = { who: {}, may: () => true, read: async () => answer(), check: async () => true }
  const feed = new Feed(board, access, { exists: false, upload: null, address: (path) => new URL(path, 'http://here/') })
  const hear = async (detail) => {
    feed.live.dispatchEvent(new CustomEvent('frame', { detail }))
    await new Promise(setImmediate)
  }
  return { board, feed, hear }
}

test('what could not be read is kept, and read when there is a connection again', async () => {
  let down = true
  const { board, hear } = setUp(() => {
    if (down) throw new TypeError('Failed to fetch')
    return STATE
  })
  await hear({ type: 'status', task_id: 'a', payload: PAYLOAD })
  assert.deepEqual([board.items.get('a')?.status, board.items.get('a')?.digest], ['complete', null])
  down = false
  await hear({ type: 'subscribed', payload: { recovered: true } })
  assert.equal(board.items.get('a').digest, '00ff')
})

test('what the server knows nothing of is seen no more', async () => {
  const { board, hear } = setUp(() => {
    throw Object.assign(new Error('There is no such upload.'), { status: 404 })
  })
  await hear({ type: 'status', task_id: 'a', payload: PAYLOAD })
  assert.equal(board.items.size, 0)
})

test('what the server knows nothing of is still seen where it can be begun anew', async () => {
  const gone = { type: 'status', task_id: 'a', payload: { ...PAYLOAD, status: 'terminated', event: 'terminated' } }
  for (const kept of [{ record: { name: 'film.mkv', size: 10 } }, { upload: { state: 'paused', received: 0 } }]) {
    const { board, hear } = setUp(() => STATE)
    Object.assign(board.item('a'), { received: 5, ...kept })
    await hear(gone)
    assert.deepEqual([board.items.size, board.items.get('a').place(0)], [1, kept.record ? 'rest' : 'now'])
    assert.equal(board.items.get('a').bytes, kept.record ? 0 : 5)
  }
})

test('what is complete and was removed is seen no more', async () => {
  const { board, hear } = setUp(() => STATE)
  for (const upload of [null, { state: 'complete' }]) {
    await hear({ type: 'status', task_id: 'a', payload: PAYLOAD })
    board.item('a').upload = upload
    await hear({ type: 'status', task_id: 'a', payload: { ...PAYLOAD, status: 'terminated', event: 'terminated' } })
    assert.equal(board.items.size, 0)
  }
})

test('what may be watched is named as the client does it', () => {
  const cases = JSON.parse(readFileSync(new URL('../../support/own_topics.json', import.meta.url)))
  for (const each of cases) assert.deepEqual(topics(each.who), each.topics, each.case)
})

test('who may not watch, or is nobody yet, watches nothing', () => {
  assert.deepEqual(topics({ owner: 'ada', scopes: ['create', 'write'], projects: ['films'], signature: null }), [])
  assert.deepEqual(topics(null), [])
})

test('of a thousand uploads that go by, a few at a time are read, and no more than are still to be seen', async () => {
  let [reading, most, all] = [0, 0, 0]
  const { board, hear } = setUp(async () => {
    most = Math.max(most, ++reading)
    all += 1
    await new Promise(setImmediate)
    reading -= 1
    return { ...STATE, samples: [] }
  })
  for (let n = 0; n < 1000; n++) {
    for (const [event, status] of [['created', 'receiving'], ['complete', 'complete']]) {
      hear({ type: 'status', task_id: `${n}`, payload: { ...PAYLOAD, event, status } })
    }
  }
  board.sorted(Date.now()) // as for a look at it: the newest of those that are over are kept
  while (reading > 0) await new Promise(setImmediate)
  assert.ok(most <= 2, `${most} at a time`)
  assert.ok(all < 100, `${all} in all`)
})

test('what could not be read is read again, also where live progress has gone on all the time', async () => {
  let down = true
  const { board, feed } = setUp(() => {
    if (down) throw new TypeError('Failed to fetch')
    return { uploads: [STATE] }
  })
  const settled = () => new Promise(setImmediate)
  feed.become({ scopes: ['read'], owner: null, projects: [], signature: null })
  await settled()
  feed.live.state = 'live'
  down = false
  feed.tick(Date.now() + 5_000)
  await settled()
  assert.equal(board.items.size, 0)
  feed.tick(Date.now() + 11_000)
  await settled()
  assert.equal(board.items.size, 1)
})

test('of the state of one upload the same is so', async () => {
  let down = true
  const { board, feed, hear } = setUp(() => {
    if (down) throw new TypeError('Failed to fetch')
    return STATE
  })
  await hear({ type: 'status', task_id: 'a', payload: PAYLOAD })
  down = false
  feed.live.state = 'live'
  feed.tick(Date.now() + 11_000)
  await new Promise(setImmediate)
  assert.equal(board.items.get('a').digest, '00ff')
})
