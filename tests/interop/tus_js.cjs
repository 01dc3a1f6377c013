// Drives tus-js-client, unchanged: node tus_js.cjs MODULES JOB
// JOB is a JSON object {scene, package, endpoint, file, ...}; the result is one JSON object on standard output.
// Rule of this file: nothing is judged here. It reports what the client saw; the test decides.
'use strict'

const fs = require('node:fs')
const { createRequire } = require('node:module')
const path = require('node:path')
const { PassThrough } = require('node:stream')

const [modules, text] = process.argv.slice(2)
const job = JSON.parse(text)
const installed = createRequire(path.join(modules, 'anywhere.js'))
const tus = installed(job.package)
// Version 5 has it in a module of its own.
const FileUrlStorage = tus.FileUrlStorage ?? installed(`${job.package}/node/FileUrlStorage`).FileUrlStorage

// Makes an upload; answers {upload, done}. `requests` collects what was sent and answered, one entry an answer.
function begin(input, options, requests) {
  let upload
  const done = new Promise((resolve, reject) => {
    upload = new tus.Upload(input, {
      endpoint: job.endpoint,
      retryDelays: [100, 300, 1000],
      onError: reject,
      onSuccess: () => resolve(upload.url),
      onAfterResponse: (request, response) => {
        requests.push({
          method: request.getMethod(),
          status: response.getStatus(),
          sent: request.getHeader('Upload-Offset') ?? null,
          offset: response.getHeader('Upload-Offset') ?? null,
          length: request.getHeader('Upload-Length') ?? null,
          concat: request.getHeader('Upload-Concat') ?? null,
          chunked: request.getUnderlyingObject().chunkedEncoding,
        })
      },
      ...options,
    })
  })
  return { upload, done }
}

// Where the bytes come from: a file, a buffer, a stream that cannot be rewound, one whose length nobody knows, or a
// reader of our own whose slices do not tell their size, so that Node sends each of them as a body without
// Content-Length (Transfer-Encoding: chunked).
const sources = {
  file: () => [fs.createReadStream(job.file), {}],
  stream: () => [fs.createReadStream(job.file).pipe(new PassThrough()), { uploadSize: fs.statSync(job.file).size }],
  buffer: () => [fs.readFileSync(job.file), {}],
  deferred: () => [fs.createReadStream(job.file).pipe(new PassThrough()), { uploadLengthDeferred: true }],
  unsized: () => {
    const slice = async (start, end) => {
      return { value: fs.createReadStream(job.file, { start, end: end - 1 }).pipe(new PassThrough()), done: false }
    }
    const source = { size: fs.statSync(job.file).size, slice, close() {} }
    return [job.file, { fileReader: { openFile: async () => source } }]
  },
}

const scenes = {
  async upload(requests) {
    const [input, more] = sources[job.source ?? 'file']()
    const options = { metadata: job.metadata ?? {}, chunkSize: job.chunkSize ?? Infinity, ...more }
    if (job.protocol) options.protocol = job.protocol
    if (job.parallelUploads) options.parallelUploads = job.parallelUploads
    if (job.duringCreation) options.uploadDataDuringCreation = true
    const { upload, done } = begin(input, options, requests)
    upload.start()
    return { url: await done }
  },

  // Aborts once `abortAt` bytes have been acknowledged, and goes on with a new Upload, as in a new process.
  async resume(requests) {
    const urlStorage = new FileUrlStorage(job.storage)
    const options = { chunkSize: job.chunkSize, urlStorage, storeFingerprintForResuming: true }
    if (job.protocol) options.protocol = job.protocol
    const first = await new Promise((resolve, reject) => {
      const { upload, done } = begin(
        sources[job.source ?? 'file']()[0],
        {
          ...options,
          onChunkComplete: (size, accepted) => {
            if (accepted >= job.abortAt) upload.abort().then(() => resolve({ url: upload.url, accepted }), reject)
          },
        },
        requests,
      )
      done.then(() => reject(new Error('it was done before it could be aborted')), reject)
      upload.start()
    })
    const { upload, done } = begin(sources[job.source ?? 'file']()[0], options, requests)
    const previous = await upload.findPreviousUploads()
    upload.resumeFromPreviousUpload(previous[0])
    upload.start()
    return { aborted: first, previous: previous.length, url: await done }
  },

  // Aborts once `abortAt` bytes have been acknowledged, and leaves the rest to others.
  async start(requests) {
    const url = await new Promise((resolve, reject) => {
      const { upload, done } = begin(
        fs.createReadStream(job.file),
        {
          chunkSize: job.chunkSize,
          metadata: job.metadata ?? {},
          ...(job.protocol ? { protocol: job.protocol } : {}),
          onChunkComplete: (size, accepted) => {
            if (accepted >= job.abortAt) upload.abort().then(() => resolve(upload.url), reject)
          },
        },
        requests,
      )
      done.then(() => reject(new Error('it was done before it could be aborted')), reject)
      upload.start()
    })
    return { url }
  },

  // Goes on with an upload that others began, by its URL.
  async finish(requests) {
    const { upload, done } = begin(
      sources[job.source ?? 'file']()[0],
      { uploadUrl: job.url, chunkSize: job.chunkSize ?? Infinity, ...(job.protocol ? { protocol: job.protocol } : {}) },
      requests,
    )
    upload.start()
    return { url: await done }
  },

  // Aborts in the middle of a request, and terminates the upload on the server.
  async terminate(requests) {
    const url = await new Promise((resolve, reject) => {
      const { upload, done } = begin(
        fs.createReadStream(job.file),
        {
          chunkSize: job.chunkSize,
          ...(job.protocol ? { protocol: job.protocol } : {}),
          onChunkComplete: () => upload.abort(true).then(() => resolve(upload.url), reject),
        },
        requests,
      )
      done.then(() => reject(new Error('it was done before it could be aborted')), reject)
      upload.start()
    })
    return { url }
  },
}

const requests = []
scenes[job.scene](requests).then(
  (result) => console.log(JSON.stringify({ ...result, requests })),
  (error) => {
    console.error(error)
    process.exitCode = 1
  },
)
