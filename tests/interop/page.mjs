// What runs in the browser: Uppy and tus-js-client, as they come, behind a few functions that the tests call.
// Rule of this file: nothing is judged here. `requests` has one entry for each answer that a client got.

import Uppy from '@uppy/core'
import Tus from '@uppy/tus'
import * as tus4 from 'tus-js-client'
import * as tus5 from 'tus-js-client-5'

let requests = []
let current // {pause(), resume(), cancel(), done}

async function fileOf({ source, name, type }) {
  const response = await fetch(source)
  return new File([await response.blob()], name ?? 'film.bin', { type: type ?? 'application/x-film', lastModified: 1e12 })
}

function recorded(options) {
  return {
    retryDelays: [100, 300, 1000, 2000, 3000, 5000, 5000, 5000],
    ...options,
    onAfterResponse: (request, response) => {
      requests.push({
        method: request.getMethod(),
        url: request.getURL(),
        status: response.getStatus(),
        sent: request.getHeader('Upload-Offset') ?? null,
        offset: response.getHeader('Upload-Offset') ?? null,
        location: response.getHeader('Location') ?? null,
        concat: request.getHeader('Upload-Concat') ?? null,
      })
    },
  }
}

// Answers when the promise does, but never throws: the failure is in the answer.
function settled(promise) {
  return promise.then(
    (url) => ({ url, error: null }),
    (error) => ({ url: null, error: String(error?.stack ?? error) }),
  )
}

const clients = {
  uppy(file, options) {
    const uppy = new Uppy({ autoProceed: false })
    uppy.use(Tus, recorded(options))
    const id = uppy.addFile({ name: file.name, type: file.type, data: file, source: 'test' })
    let failures = 0
    uppy.on('upload-error', () => {
      failures += 1
    })
    const done = uppy.upload().then((result) => {
      if (result?.successful?.length === 1 && failures === 0) return result.successful[0].uploadURL
      throw new Error(JSON.stringify({ failures, result }))
    })
    return {
      done: settled(done),
      pause: () => uppy.pauseAll(),
      resume: () => uppy.resumeAll(),
      cancel: () => uppy.removeFile(id),
    }
  },

  // tus-js-client by itself. `stream` gives it a stream of unknown length in the place of the file, as its version
  // wants it: 4 the reader, 5 the stream.
  tus(file, { version, stream, ...options }) {
    const { Upload } = version === 5 ? tus5 : tus4
    let upload
    const done = new Promise((resolve, reject) => {
      const streamed = version === 5 ? () => file.stream() : () => file.stream().getReader()
      upload = new Upload(stream ? streamed() : file, {
        ...recorded(options),
        metadata: { filename: file.name },
        onSuccess: () => resolve(upload.url),
        onError: reject,
      })
    })
    const known = stream ? Promise.resolve([]) : upload.findPreviousUploads()
    const begun = known.then((previous) => {
      if (previous.length > 0) upload.resumeFromPreviousUpload(previous[0])
      upload.start()
    })
    return {
      done: settled(begun.then(() => done)),
      pause: () => upload.abort(),
      resume: () => upload.start(),
      cancel: () => upload.abort(true),
    }
  },
}

window.interop = {
  async begin({ client, file, options }) {
    requests = []
    current = clients[client](await fileOf(file), options)
  },
  pause: () => current.pause(),
  resume: () => current.resume(),
  cancel: () => current.cancel(),
  async done() {
    return { ...(await current.done), requests }
  },
  requests: () => requests,
  // What a page can do by itself: the status of each request, or null if the browser does not let it see an answer.
  async attempt(all) {
    const answers = []
    for (const { method, url, headers, body } of all) {
      answers.push(await fetch(url, { method, headers, body }).then((r) => r.status, () => null))
    }
    return answers
  },
}
