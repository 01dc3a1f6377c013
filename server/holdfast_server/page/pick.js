// Files out of a drop or a dialog.
//
// Rule of this file: every file comes as `{file, path, handle}`; `path` is its name, with the folders that it was chosen
// in, and `handle` opens it again after a reload, where the browser has such (else null). What cannot be read comes as
// `{path, error}`, and what is behind it comes all the same.

/** What was dropped. To be called at once: the list is empty when the event is over. */
export function dropped(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === 'file')
  const found = items.map((item) => [item.getAsFileSystemHandle?.(), item.webkitGetAsEntry?.(), item.getAsFile()])
  return unfold(found)
}

/** Null if there is none, or not in two seconds: it is of use after a reload, and the file is here without it. */
function soon(asked) {
  const patience = new Promise((resolve) => setTimeout(resolve, 2000, null))
  return Promise.race([Promise.resolve(asked).catch(() => null), patience])
}

async function* unfold(found) {
  for (const [asked, entry, file] of found) {
    const handle = await soon(asked)
    if (handle) yield* fromHandle(handle)
    else if (entry?.isDirectory) yield* fromEntry(entry)
    else if (file) yield { file, path: file.name, handle: null }
  }
}

/** What was chosen in an `<input type="file">`. */
export function* chosen(input) {
  for (const file of input.files) yield { file, path: file.webkitRelativePath || file.name, handle: null }
}

/** Whether there are dialogs that give handles. */
export const hasDialogs = 'showOpenFilePicker' in globalThis

/** Asks for files, or for a folder. Nothing comes if the user changes their mind. */
export async function* ask(folder) {
  let handles
  try {
    handles = folder ? [await showDirectoryPicker()] : await showOpenFilePicker({ multiple: true })
  } catch (error) {
    if (error.name === 'AbortError') return
    throw error
  }
  for (const handle of handles) yield* fromHandle(handle)
}

/** The file of a handle that was kept, or null. `mayAsk`: this is the answer to a click, so the browser may ask, too. */
export async function reopen(handle, mayAsk) {
  try {
    let allowed = await handle.queryPermission({ mode: 'read' })
    if (allowed === 'prompt' && mayAsk) allowed = await handle.requestPermission({ mode: 'read' })
    return allowed === 'granted' ? await handle.getFile() : null
  } catch {
    return null // moved or removed
  }
}

async function* fromHandle(handle, above = '') {
  const path = above + handle.name
  try {
    if (handle.kind === 'directory') for await (const below of handle.values()) yield* fromHandle(below, `${path}/`)
    else yield { file: await handle.getFile(), path, handle }
  } catch (error) {
    yield { path, error }
  }
}

async function* fromEntry(entry, above = '') {
  const path = above + entry.name
  try {
    if (!entry.isDirectory) yield { file: await new Promise((resolve, reject) => entry.file(resolve, reject)), path, handle: null }
    else for await (const below of entriesOf(entry)) yield* fromEntry(below, `${path}/`)
  } catch (error) {
    yield { path, error }
  }
}

async function* entriesOf(folder) {
  const reader = folder.createReader()
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)) // at most 100 at a time
    if (some.length === 0) return
    yield* some
  }
}
