// Files out of a drop, some of which cannot be read.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { dropped } from '../../../server/holdfast_server/page/pick.js'

const file = (name) => ({ name })
const gone = Object.assign(new Error('A requested file could not be found.'), { name: 'NotFoundError' })

async function found(item) {
  const all = []
  for await (const { path, error } of dropped({ items: [{ kind: 'file', getAsFile: () => null, ...item }] })) all.push([path, error ?? null])
  return all
}

const FOUND = [['box/one', null], ['box/two', gone], ['box/inner', gone], ['box/three', null]] // prettier-ignore

test('of a folder that the browser has a handle of, what can be read comes', async () => {
  const handle = (name, getFile = async () => file(name)) => ({ kind: 'file', name, getFile })
  const folder = (name, values) => ({ kind: 'directory', name, values })
  const box = folder('box', async function* () {
    yield handle('one')
    yield handle('two', async () => Promise.reject(gone))
    yield folder('inner', async function* () {
      throw gone
    })
    yield handle('three')
  })
  assert.deepEqual(await found({ getAsFileSystemHandle: async () => box }), FOUND)
})

test('and so it does where it has only entries', async () => {
  const entry = (name, error) => ({ name, file: (resolve, reject) => (error ? reject(error) : resolve(file(name))) })
  const folder = (name, read) => ({ name, isDirectory: true, createReader: () => ({ readEntries: read }) })
  const parts = [[entry('one'), entry('two', gone)], [folder('inner', (resolve, reject) => reject(gone)), entry('three')], []]
  const box = folder('box', (resolve) => resolve(parts.shift()))
  assert.deepEqual(await found({ webkitGetAsEntry: () => box }), FOUND)
})
