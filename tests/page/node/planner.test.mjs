// The plan of an upload, against a server that is a list of bytes.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { backoff, KIB, Meter, MIB, Plan, Throttle } from '../../../server/holdfast_server/page/planner.js'
import { Ranges } from '../../../server/holdfast_server/page/ranges.js'

const OFFER = { granule: 64 * KIB, maxChunk: 64 * MIB }

/** Numbers in [0, 1) that are the same in every run. */
function chance(seed) {
  return () => {
    seed = (seed * 1664525 + 1013904223) % 2 ** 32
    return seed / 2 ** 32
  }
}

function whole(length) {
  const plan = new Plan({ length, ...OFFER })
  plan.sync({ ranges: [[0, length]], more: false })
  return plan
}

test('nothing is handed out before the server has said what is missing', () => {
  const plan = new Plan({ length: MIB, ...OFFER })
  assert.equal(plan.next(4), null)
  assert.ok(plan.asks)
  assert.ok(!plan.done)
})

test('chunks are aligned, do not overlap and cover the file', () => {
  const length = 100 * MIB + 17
  const plan = whole(length)
  const seen = new Ranges()
  for (let chunk; (chunk = plan.next(4)); plan.accepted(chunk, 0.05)) {
    assert.equal(chunk.start % OFFER.granule, 0)
    assert.ok(chunk.end % OFFER.granule === 0 || chunk.end === length)
    assert.ok(chunk.end - chunk.start <= 8 * MIB)
    assert.equal(seen.size + chunk.end - chunk.start, (seen.add(chunk.start, chunk.end), seen.size))
  }
  assert.deepEqual([...seen], [[0, length]])
  assert.ok(plan.done)
  assert.equal(plan.received, length)
})

test('whatever fails, and whatever the server forgets, everything is sent in the end', () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = chance(seed)
    const length = Math.floor(random() * 40 * MIB) + 1
    const plan = new Plan({ length, ...OFFER })
    const server = new Ranges()
    const flying = []
    const tell = () => {
      const gaps = [...server.gaps(length)]
      const some = gaps.slice(0, 3)
      return { ranges: some, more: some.length < gaps.length }
    }
    let steps = 0
    while (!plan.done) {
      assert.ok(++steps < 20000, `seed ${seed} does not end`)
      const what = random()
      if (plan.asks || what < 0.1) {
        plan.asking()
        const answer = tell()
        // Another chunk is accepted while the answer is on its way.
        if (flying.length && random() < 0.5) {
          const chunk = flying.shift()
          server.add(chunk.start, chunk.end)
          plan.accepted(chunk, random() * 4)
        }
        plan.sync(answer)
        assert.equal(plan.received <= length, true)
        continue
      }
      if (flying.length < 4 && what < 0.6) {
        const chunk = plan.next(4)
        if (chunk) {
          for (const other of flying) assert.ok(chunk.end <= other.start || other.end <= chunk.start)
          flying.push(chunk)
          continue
        }
      }
      const chunk = flying.splice(Math.floor(random() * flying.length), 1)[0]
      if (!chunk) continue
      if (random() < 0.7) {
        server.add(chunk.start, chunk.end)
        plan.accepted(chunk, random() * 10)
      } else {
        if (random() < 0.3) server.add(chunk.start, chunk.end) // it was stored, and the answer was lost
        plan.failed(chunk, { broken: random() < 0.5 })
      }
    }
    assert.deepEqual([...server], [[0, length]], `seed ${seed}`)
  }
})

test('what is stored already is not sent, and ends of other clients are widened to the granule', () => {
  const plan = new Plan({ length: MIB, ...OFFER })
  plan.sync({ ranges: [[100_000, 200_000]], more: false })
  const chunk = plan.next(4)
  assert.deepEqual([chunk.start, chunk.end], [65536, 262144])
  assert.equal(plan.next(4), null)
})

test('a small rest does not go by itself', () => {
  const plan = whole(2 * MIB + 12)
  const sizes = []
  for (let chunk; (chunk = plan.next(4)); ) sizes.push(chunk.end - chunk.start)
  assert.deepEqual(sizes, [MIB, MIB + 12])
})

test('the size follows the time that a chunk takes', () => {
  const fast = whole(1024 * MIB)
  for (let i = 0; i < 12; i++) fast.accepted(fast.next(1), 0.05)
  const large = fast.next(1)
  assert.equal(large.end - large.start, 8 * MIB)
  const slow = whole(1024 * MIB)
  for (let i = 0; i < 12; i++) slow.accepted(slow.next(1), 30)
  const small = slow.next(1)
  assert.equal(small.end - small.start, 256 * KIB)
})

test('a chunk that is too large is cut smaller, down to the granule', () => {
  const plan = whole(64 * MIB)
  const chunk = plan.next(1)
  assert.ok(plan.tooLarge(chunk, 128 * KIB))
  plan.failed(chunk)
  const next = plan.next(1)
  assert.equal(next.end - next.start, 128 * KIB)
  assert.ok(plan.tooLarge(next))
  plan.failed(next)
  const least = plan.next(1)
  assert.equal(least.end - least.start, 64 * KIB)
  assert.ok(!plan.tooLarge(least))
})

test('a size that was asked for stays', () => {
  const plan = new Plan({ length: 10 * MIB, ...OFFER, chunkSize: 2 * MIB })
  plan.sync({ ranges: [[0, 10 * MIB]], more: false })
  for (let i = 0; i < 5; i++) {
    const chunk = plan.next(4)
    assert.equal(chunk.end - chunk.start, 2 * MIB)
    plan.accepted(chunk, 60)
  }
  assert.ok(plan.done)
})

test('waits grow, are bounded, and are never shorter than what the server asks for', () => {
  assert.equal(backoff(1, 0), 0)
  assert.ok(backoff(1, 0.999) < 0.5)
  assert.ok(backoff(50, 0.999) < 20)
  assert.ok(backoff(3, 0, 7) >= 7)
  assert.ok(backoff(3, 0.999, 7) < 9)
  assert.ok(backoff(3, 0, 1e9) <= 600)
})

test('asked for less, it does less, and comes back', () => {
  const throttle = new Throttle(4)
  throttle.slower(10, 0, 5)
  assert.deepEqual([throttle.limit, throttle.until], [2, 15])
  throttle.slower(11, 0, null)
  throttle.slower(12, 0, null)
  assert.equal(throttle.limit, 1)
  for (let i = 0; i < 48; i++) throttle.accepted()
  assert.equal(throttle.limit, 4)
})

test('a meter tells the speed from its first second on', () => {
  const meter = new Meter(0)
  for (let i = 1; i <= 10; i++) meter.add(100, i / 10)
  assert.ok(Math.abs(meter.speed(1) - 1000) < 120, meter.speed(1))
  assert.ok(meter.speed(30) < 5)
})
