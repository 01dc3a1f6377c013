// What this browser remembers of the uploads that it began, across reloads.
//
// Rule of this file: a record is written before a byte is sent and removed when its upload is over. It has the upload's
// URL and how to know the file again; the file itself only as a handle, where the browser has such (the File System Access
// API). Where there is no database (private windows of some browsers) nothing is remembered, and nothing fails.

const STORE = 'uploads'
let opened = null

function open() {
  opened ??= new Promise((resolve) => {
    try {
      const asked = indexedDB.open('holdfast', 1)
      asked.onupgradeneeded = () => asked.result.createObjectStore(STORE, { keyPath: 'url' })
      asked.onsuccess = () => resolve(asked.result)
      asked.onerror = () => resolve(null)
    } catch {
      resolve(null)
    }
  })
  return opened
}

async function work(mode, act) {
  const database = await open()
  if (database === null) return undefined
  return new Promise((resolve) => {
    try {
      const transaction = database.transaction(STORE, mode)
      const asked = act(transaction.objectStore(STORE))
      transaction.oncomplete = () => resolve(asked.result)
      transaction.onabort = transaction.onerror = () => resolve(undefined)
    } catch {
      resolve(undefined)
    }
  })
}

/** Records of uploads at this endpoint: `{url, endpoint, name, path, size, modified, handle, paused}`. */
export async function recall(endpoint) {
  const found = (await work('readonly', (store) => store.getAll())) ?? []
  return found.filter((record) => record.endpoint === endpoint)
}

export function remember(record) {
  return work('readwrite', (store) => store.put(record))
}

export function forget(url) {
  return work('readwrite', (store) => store.delete(url))
}

/** Whether this is the file that the record was begun with, as far as can be told without reading it. */
export function isSame(record, file, path) {
  return record.size === file.size && record.modified === file.lastModified && record.path === path
}
