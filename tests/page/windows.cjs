// Windows of a headless Chromium, driven as somebody in front of them would: node windows.cjs MODULES CHROMIUM
// Each line on standard input is one JSON command, each line on standard output its JSON answer, {value} or {error}.
// `window` is any name; it is opened when it is first used, with a profile of its own: another person looks on.
//   {window, open: URL}                  go to a page
//   {window, reload: true}
//   {window, drop: [PATH, ...]}          drag files in from outside, as the desktop does
//   {window, choose: [PATH, ...], into: SELECTOR}
//   {window, fill: TEXT, into: SELECTOR}
//   {window, click: SELECTOR} {window, press: KEY}
//   {window, look: EXPRESSION}           what JavaScript in the page makes of it
//   {window, shape: {width, height, scheme, motion}}
//   {window, download: SELECTOR, to: PATH}  a click on it; the name under which the browser would save the file
//   {window, tree: SELECTOR}             what a screen reader has of it, as YAML
//   {window, picture: PATH, full: bool}  a PNG of what can be seen
//   {window, dialogs: true}              of which types the dialogs were that the browser has shown since it was last asked
//   {window, close: true}
// Rule of this file: nothing is judged here. What a page writes to its console goes to standard error.
'use strict'

const { createRequire } = require('node:module')
const path = require('node:path')
const readline = require('node:readline')

const [modules, executablePath] = process.argv.slice(2)
const { chromium } = createRequire(path.join(modules, 'anywhere.js'))('playwright-core')

async function carryOut(page, command) {
  if (command.open) await page.goto(command.open)
  else if (command.reload) await page.reload()
  else if (command.drop) {
    const session = await page.context().newCDPSession(page)
    const data = { items: [], files: command.drop, dragOperationsMask: 1 }
    for (const type of ['dragEnter', 'dragOver', 'drop']) {
      await session.send('Input.dispatchDragEvent', { type, x: 200, y: 200, data })
    }
    await session.detach()
  } else if (command.choose) await page.setInputFiles(command.into, command.choose)
  else if (command.fill) await page.fill(command.into, command.fill)
  else if (command.click) await page.click(command.click, { timeout: 10_000 })
  else if (command.press) await page.keyboard.press(command.press)
  else if (command.shape) {
    const { width, height, scheme, motion } = command.shape
    if (width) await page.setViewportSize({ width, height })
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: motion })
  } else if (command.picture) await page.screenshot({ path: command.picture, fullPage: command.full })
  else if (command.download) {
    const [download] = await Promise.all([page.waitForEvent('download', { timeout: 10_000 }), page.click(command.download)])
    await download.saveAs(command.to)
    return download.suggestedFilename()
  } else if (command.tree) return page.locator(command.tree).ariaSnapshot()
  else if (command.dialogs) return page.dialogs.splice(0)
  else if (command.look) return page.evaluate(command.look)
  return null
}

async function main() {
  const browser = await chromium.launch({ executablePath, headless: true })
  const pages = new Map()
  console.log(JSON.stringify({ value: browser.version() }))

  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line)
    let answer
    try {
      let page = pages.get(command.window)
      if (!page) {
        page = await (await browser.newContext({ viewport: { width: 1280, height: 800 } })).newPage()
        pages.set(command.window, page)
        await page.addInitScript(() => {
          globalThis.violations = []
          globalThis.drops = 0
          addEventListener('drop', () => (globalThis.drops += 1), { capture: true })
          addEventListener('securitypolicyviolation', (event) => {
            globalThis.violations.push(`${event.effectiveDirective}: ${event.blockedURI} ${event.sourceFile}`)
          })
        })
        page.on('console', (message) => console.error(`${command.window}: ${message.type()}: ${message.text()}`))
        page.on('pageerror', (error) => console.error(`${command.window}: error in the page: ${error.stack}`))
        page.dialogs = []
        page.on('dialog', (dialog) => {
          page.dialogs.push(dialog.type())
          dialog.accept()
        })
      }
      if (command.close) {
        await page.context().close()
        pages.delete(command.window)
        answer = { value: null }
      } else {
        answer = { value: (await carryOut(page, command)) ?? null }
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
