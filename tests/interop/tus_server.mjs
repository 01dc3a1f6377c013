// @tus/server with its file store, for tests/interop/test_foreign_servers.py.
//
// node tus_server.mjs MODULES FOLDER PORT: serves /files on 127.0.0.1 and keeps uploads in FOLDER, for a day if they
// are not finished. MODULES is the folder into which the packages were installed.

import { createRequire } from 'node:module'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const [modules, directory, port] = process.argv.slice(2)
const require = createRequire(path.join(modules, 'any.js'))
const load = async (name) => import(pathToFileURL(require.resolve(name)).href)
const { Server } = await load('@tus/server')
const { FileStore } = await load('@tus/file-store')

const day = 24 * 60 * 60 * 1000
const datastore = new FileStore({ directory, expirationPeriodInMilliseconds: day })
const server = new Server({ path: '/files', datastore })
server.listen({ host: '127.0.0.1', port: Number(port) })
