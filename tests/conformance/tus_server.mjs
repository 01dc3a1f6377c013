// @tus/server on loopback, as its README starts it: node tus_server.mjs NODE_MODULES FOLDER MAX_SIZE
// Prints the creation URL once it listens.
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const [modules, directory, maxSize] = process.argv.slice(2)
const load = (name) => import(pathToFileURL(join(modules, name, 'dist', 'index.js')).href)
const { Server } = await load('@tus/server')
const { FileStore } = await load('@tus/file-store')

const server = new Server({
  path: '/files',
  maxSize: Number(maxSize),
  datastore: new FileStore({ directory, expirationPeriodInMilliseconds: 3600 * 1000 }),
})
const listener = server.listen({ host: '127.0.0.1', port: 0 }, () => {
  console.log(`http://127.0.0.1:${listener.address().port}/files`)
})

// A download whose connection is closed at its end makes @tus/server 2.4.5 throw where no request can catch it (Node 20),
// and Node ends the process then. One test must not take the server away from all others.
process.on('uncaughtException', (error) => console.error(error))
