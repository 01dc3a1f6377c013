// Ranges, digests, fields, words and pictures, each against something plain.
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { Board, Item, Series } from '../../../server/holdfast_server/page/board.js'
import * as fields from '../../../server/holdfast_server/page/fields.js'
import { ago, duration, percent, scale, size } from '../../../server/holdfast_server/page/format.js'
import { coverage } from '../../../server/holdfast_server/page/map.js'
import { ceiling } from '../../../server/holdfast_server/page/plot.js'
import { Ranges } from '../../../server/holdfast_server/page/ranges.js'
import { Sha256 } from '../../../server/holdfast_server/page/sha256.js'

test('ranges are a set of integers', () => {
  for (let run = 0; run < 2000; run++) {
    const ranges = new Ranges()
    const plain = new Set()
    for (let step = 0; step < 12; step++) {
      const start = Math.floor(Math.random() * 30)
      const end = start + Math.floor(Math.random() * 8)
      const adds = Math.random() < 0.6
      if (adds) ranges.add(start, end)
      else ranges.remove(start, end)
      for (let i = start; i < end; i++) plain[adds ? 'add' : 'delete'](i)
    }
    const found = []
    let before = -1
    for (const [start, end] of ranges) {
      assert.ok(start > before && start < end, ranges.edges.join())
      before = end
      for (let i = start; i < end; i++) found.push(i)
    }
    assert.deepEqual(found, [...plain].sort((a, b) => a - b))
    assert.equal(ranges.size, plain.size)
    assert.equal(ranges.covers(3, 9), [3, 4, 5, 6, 7, 8].every((i) => plain.has(i)))
    assert.equal(ranges.gaps(40).size, 40 - plain.size)
  }
})

test('SHA-256 is that of others, however the message is cut', () => {
  for (const length of [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 1000, 1 << 20]) {
    const message = randomBytes(length)
    const hash = new Sha256()
    for (let at = 0; at < length; ) {
      const end = Math.min(length, at + 1 + Math.floor(Math.random() * 3000))
      hash.update(message.subarray(at, end))
      at = end
    }
    assert.equal(fields.hex(hash.digest()), createHash('sha256').update(message).digest('hex'))
  }
})

test('fields are read as protocol.md spells them', () => {
  assert.deepEqual(fields.parseParallel('?1;granule=65536;max-chunk=67108864;holes'), { granule: 65536, maxChunk: 67108864 })
  for (const wrong of [null, '', '?0;granule=1;max-chunk=1', '?1', '?1;granule=x;max-chunk=1']) assert.equal(fields.parseParallel(wrong), null)
  assert.deepEqual(fields.parseMissing('(65536 65536), (262144 10);more'), { ranges: [[65536, 131072], [262144, 262154]], more: true })
  assert.deepEqual(fields.parseMissing(null), { ranges: [], more: false })
  assert.equal(fields.parseMissing('(1 2) nonsense'), null)
  assert.equal(fields.parseRetryAfter('7', 0), 7)
  assert.equal(fields.parseRetryAfter('Thu, 01 Jan 1970 00:00:09 GMT', 4000), 5)
  assert.equal(fields.parseRetryAfter(null, 0), null)
  const digest = createHash('sha256').digest()
  const text = fields.formatDigest('sha-256', digest)
  assert.equal(text, `sha-256=:${digest.toString('base64')}:`)
  assert.deepEqual(fields.parseDigest(`xxh3-64=:AAAA:, ${text}`, 'sha-256'), new Uint8Array(digest))
  assert.equal(fields.formatMetadata({ filename: 'grün.txt', filetype: '' }), `filename ${Buffer.from('grün.txt').toString('base64')},filetype`)
})

test('numbers in words', () => {
  assert.deepEqual([0, 999, 1000, 1024, 1536, 10 * 1024, 200 * 2 ** 20, 2 ** 40].map(size), ['0 B', '999 B', '0.98 KiB', '1.00 KiB', '1.50 KiB', '10.0 KiB', '200 MiB', '1.00 TiB'])
  assert.deepEqual([0, 59.6, 250, 3600, 11100, 187200].map(duration), ['0 s', '1 min', '4 min 10 s', '1 h', '3 h 5 min', '2 d 4 h'])
  assert.deepEqual([percent(0, 10), percent(9.999, 10), percent(10, 10), percent(0, 0)], ['0 %', '99 %', '100 %', '100 %'])
  assert.equal(ago(0, 240_000), '4 min ago')
})

test('the map covers exactly what is stored', () => {
  const cells = coverage([[0, 25], [50, 60]], 100, 10)
  assert.deepEqual([...cells].map((cell) => Math.round(cell * 100)), [100, 100, 50, 0, 0, 100, 0, 0, 0, 0])
  const tiny = coverage([[0, 1]], 3, 12)
  assert.deepEqual([...tiny].map(Math.round), [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0])
})

test('a million ranges are one pass', () => {
  function* many() {
    for (let i = 0; i < 2 ** 20; i++) yield [i * 131072, i * 131072 + 65536]
  }
  const cells = coverage(many(), 2 ** 20 * 131072, 400)
  for (const cell of cells) assert.ok(Math.abs(cell - 0.5) < 0.001, cell)
})

test('the scale of the plot ends at a round number above the peak', () => {
  for (const peak of [0, 1, 99, 1000, 1.5 * 2 ** 20, 73 * 2 ** 20, 600 * 2 ** 20, 900 * 2 ** 30]) {
    const top = ceiling(peak)
    assert.match(scale(top), /^([125]0{0,2}) [KMGT]?i?B\/s$/)
    assert.ok(top >= peak * 0.999 && top <= Math.max(100, 2.6 * peak), `${peak}: ${top}`)
  }
})

const PAYLOAD = {
  task_id: 'a', name: 'film.mkv', owner: null, project: null, status: 'receiving', progress: 10, current_step: 'receiving',
  total_steps: 3, completed_steps: 0, message: '', length: 1000, received: 100, arriving: 0, prefix: 100, speed: 50, eta: 18,
  errors: 0, retries: 0, error: null, started: '2026-01-01T00:00:00.000Z', timestamp: '2026-01-01T00:00:10.000Z',
} // prettier-ignore
const NOW = Date.parse('2026-01-01T00:00:11Z')

test('an older snapshot does not replace a newer one', () => {
  const item = new Item('a')
  item.apply(PAYLOAD)
  item.apply({ ...PAYLOAD, received: 50, timestamp: '2026-01-01T00:00:09.000Z' })
  assert.equal(item.bytes, 100)
  assert.equal(item.tempo(), '50 B/s, 18 s left')
})

test('an end counts whatever moment is told with it, and is not taken back', () => {
  const error = { code: 'upload-digest-mismatch', detail: 'The digest is another one.' }
  const state = {
    id: 'a', name: 'film.mkv', state: 'failed', length: 1000, received: 1000, digests: {}, error,
    created: PAYLOAD.started, updated: '2026-01-01T00:00:09.000Z', progress: { current_step: 'verifying' },
  } // prettier-ignore
  const told = [
    (item) => item.apply({ ...PAYLOAD, status: 'failed', error, timestamp: state.updated }),
    (item) => item.applyState(state),
  ]
  for (const tell of told) {
    const item = new Item('a')
    item.apply({ ...PAYLOAD, status: 'verifying' }) // made while the end was written, and later by its clock
    tell(item)
    item.apply({ ...PAYLOAD, status: 'verifying', timestamp: '2026-01-01T00:00:12.000Z' })
    assert.deepEqual([item.status, item.error], ['failed', error])
    item.applyState({ ...state, state: 'expired', error: null, updated: '2026-01-01T00:00:08.000Z' })
    assert.equal(item.status, 'expired')
  }
})

test('an upload is where it belongs, and says how it is', () => {
  const item = new Item('a')
  item.apply(PAYLOAD)
  assert.equal(item.place(NOW), 'now')
  assert.equal(item.describe(NOW).words, 'Receiving')
  assert.equal(item.place(NOW + 60_000), 'rest')
  assert.equal(item.describe(NOW + 60_000).words, 'Nothing arrives')
  const error = { code: 'upload-digest-mismatch', detail: 'The digest is another one.' }
  item.apply({ ...PAYLOAD, status: 'failed', error, timestamp: '2026-01-01T00:00:12.000Z' })
  assert.equal(item.place(NOW), 'over')
  assert.deepEqual(item.describe(NOW), { tone: 'bad', words: 'Failed', detail: 'The digest is another one.' })
})

test('an upload of this page is one item before and after it has an address', () => {
  const board = new Board()
  const upload = { url: null, size: 1000, state: 'waiting', file: { name: 'film.mkv' }, received: 0, digest: null }
  const item = board.own(upload)
  upload.url = 'http://here/files/abc'
  assert.equal(board.own(upload), item)
  assert.deepEqual([...board.items.keys()], ['abc'])
  const first = new Board()
  const known = first.item('abc') // the server's news may come before the answer to the creation
  first.own({ ...upload, url: null })
  assert.equal(first.own(upload), known)
})

test('what was never begun waits in its row, also when it is paused; what was begun keeps its card', () => {
  const board = new Board()
  const upload = { url: null, size: 1000, state: 'paused', running: false, file: { name: 'film.mkv' }, received: 0, ranges: [], digest: null }
  assert.equal(board.own(upload).place(NOW), 'next')
  upload.url = 'http://here/files/abc'
  assert.equal(board.own(upload).place(NOW), 'now')
})

test('a map is that of whoever knows more', () => {
  const board = new Board()
  const upload = { url: 'http://here/files/a', size: 1000, state: 'sending', running: true, file: { name: 'film.mkv' }, received: 50, ranges: [[0, 50]], digest: null }
  const item = board.own(upload)
  item.apply(PAYLOAD)
  assert.deepEqual([item.ranges, item.isAhead], [[[0, 50]], false]) // the answer is on its way
  Object.assign(upload, { state: 'paused', running: false })
  assert.deepEqual([item.ranges, item.isAhead], [[[0, 50]], true]) // it was missed
  Object.assign(item, { stored: [[0, 100]], storedAt: item.received })
  assert.deepEqual(item.ranges, [[0, 100]])
  Object.assign(upload, { running: true, received: 120, ranges: [[0, 120]] })
  assert.deepEqual(item.ranges, [[0, 120]])
})

test('a plot shows as much time as there is something of', () => {
  const series = new Series(120)
  const shown = []
  for (let at = 0; at < 200; at++) {
    series.push(at, at)
    if (shown[shown.length - 1] !== series.window) shown.push(series.window)
  }
  assert.deepEqual(shown, [30, 60, 120])
})

test('a series keeps its span', () => {
  const series = new Series(10)
  for (let at = 0; at < 50; at++) series.push(at, at)
  assert.deepEqual([series.points.length, series.points[0][0], series.peak], [11, 39, 49])
})
