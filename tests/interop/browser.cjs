// Drives a headless Chromium: node browser.cjs MODULES CHROMIUM
// Each line on standard input is one JSON command, each line on standard output its JSON answer, {value} or {error}:
//   {renew: true}              a page without a past: another person uses the browser now, and the last one is gone
//   {open: URL}                go to a page (its local storage stays)
//   {call: NAME, with: VALUE}  call a function of the page's `interop`, and wait for what it answers
// Rule of this file: nothing is judged here. What the page writes to its console goes to standard error.
'use strict'

const { createRequire } = require('node:module')
const path = require('node:path')
const readline = require('node:readline')

const [modules, executablePath] = process.argv.slice(2)
const { chromium } = createRequire(path.join(modules, 'anywhere.js'))('playwright-core')

async function newPage(browser) {
  const page = await (await browser.newContext()).newPage()
  page.on('console', (message) => console.error(`console.${message.type()}: ${message.text()}`))
  page.on('pageerror', (error) => console.error(`error in the page: ${error.stack}`))
  page.on('requestfailed', (request) => {
    console.error(`failed: ${request.method()} ${request.url()}: ${request.failure()?.errorText}`)
  })
  return page
}

async function main() {
  const browser = await chromium.launch({ executablePath, headless: true, args: ['--host-resolver-rules=MAP *.rebound.example 127.0.0.1'] })
  let page
  console.log(JSON.stringify({ value: browser.version() }))

  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line)
    let answer
    try {
      if (command.renew) {
        await page?.context().close()
        page = await newPage(browser)
        answer = { value: null }
      } else if (command.open) {
        await page.goto(command.open)
        answer = { value: null }
      } else {
        const value = await page.evaluate(({ call, with: given }) => window.interop[call](given), command)
        answer = { value: value ?? null }
      }
    } catch (error) {
      answer = { error: String(error.stack ?? error) }
    }
    console.log(JSON.stringify(answer))
  }
  await browser.close()
}

main().catch((error) => {
  console.error(error)
  process.exitCode = 1
})
