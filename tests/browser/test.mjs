// The status page in a real browser: who gets in, what it shows, that it follows what happens, and that nothing of what it is told
// becomes markup.

import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { chromium } from 'playwright-core'
import { ADMIN, ODD, System } from './system.mjs'

const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync']
/** Where pictures of the page go, if they are wanted. */
const pictures = process.env.PICTURES

let system, browser
before(async () => {
  system = await System.start()
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS })
})
after(async () => {
  await browser?.close()
  await system?.stop()
})

/** A page, and all that goes wrong in it. */
async function open(options = {}, path = '/status') {
  const context = await browser.newContext({ httpCredentials: ADMIN, viewport: { width: 1280, height: 900 }, ...options })
  const page = await context.newPage()
  const wrong = []
  page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) wrong.push(message.text()) })
  page.on('pageerror', (error) => wrong.push(String(error)))
  page.on('dialog', (dialog) => { wrong.push(`dialog: ${dialog.message()}`); dialog.dismiss() })
  page.on('request', (request) => {
    const url = request.url()
    if (!url.startsWith(`${system.url}/`) && !url.startsWith('data:')) wrong.push(`asks ${url}`)
  })
  await page.goto(system.url + path)
  return { page, wrong, close: () => context.close() }
}

async function picture(page, name) {
  if (!pictures) return
  mkdirSync(pictures, { recursive: true })
  await page.screenshot({ path: `${pictures}/${name}.png`, fullPage: true })
}

test('nobody gets in without a password, or with a wrong one', async () => {
  for (const httpCredentials of [undefined, { ...ADMIN, password: 'wrong' }, { username: 'app', password: 'secret of app' }]) {
    for (const path of ['/status', '/status.json']) {
      const context = await browser.newContext({ httpCredentials })
      const page = await context.newPage()
      const statuses = []
      page.on('response', (answer) => statuses.push(answer.status()))
      const answer = await page.goto(system.url + path).catch((error) => {
        // Where it has a password that is refused, the browser gives up.
        assert.match(error.message, /ERR_INVALID_AUTH_CREDENTIALS/)
      })
      assert.ok(statuses.every((status) => status === 401), `${path}: ${statuses}`)
      if (answer) assert.doesNotMatch(await answer.text(), /shop|Throughput/)
      await context.close()
    }
  }
  const { page, close } = await open({}, '/')
  await page.locator('#state', { hasText: 'running' }).waitFor()
  await close()
})

test('it shows nodes and pools, and follows load and a failover', async () => {
  const { page, wrong, close } = await open()
  await page.locator('#state', { hasText: 'running' }).waitFor()
  const reads = system.load('shop', 8, 60, 'SELECT count(*) FROM pg_class;\nSELECT pg_sleep(0.002);\n')
  const odd = system.load(ODD, 3, 60, 'SELECT 1;\n')
  const role = (port, role) => page.locator('.node', { hasText: `127.0.0.1:${port}` }).locator('.chip', { hasText: role })
  await role(system.ports.primary, 'primary').waitFor()
  await role(system.ports.replica, 'replica').waitFor()
  const row = page.locator('#pools tr', { hasText: ODD })
  await row.waitFor()
  assert.equal(await page.locator('main script').count(), 0)
  const figure = (selector) => page.locator(selector).textContent().then((text) => Number(text.replaceAll(',', '')))
  const rises = async () => { while (!(await figure('#tps') > 50)) await page.waitForTimeout(200) }
  await rises()
  assert.equal(await figure('#clients') >= 11, true)
  // It draws, and goes on doing so.
  const line = () => page.locator('#tps-line path.first').getAttribute('d')
  const drawn = await line()
  await page.waitForFunction((drawn) => document.querySelector('#tps-line path.first').getAttribute('d') !== drawn, drawn)
  await page.locator('#statements code', { hasText: 'SELECT count(*) FROM pg_class' }).first().waitFor()
  await page.locator('#top').getByText('SELECT pg_sleep(?)').first().waitFor()
  // A minute has more to show.
  if (pictures) await page.waitForTimeout(25_000)
  await picture(page, 'light')

  await system.failOver()
  await role(system.ports.replica, 'primary').waitFor()
  await role(system.ports.primary, 'down').waitFor()
  const event = page.locator('#events li[data-kind="failover"]', { hasText: `127.0.0.1:${system.ports.replica} was replica, is primary` })
  await event.waitFor()
  await picture(page, 'failover')
  assert.deepEqual(wrong, [])
  await close()
  for (const [name, options] of [['dark', { colorScheme: 'dark' }], ['narrow', { viewport: { width: 390, height: 844 } }], ['narrow-dark', { colorScheme: 'dark', viewport: { width: 390, height: 844 } }]]) {
    const { page, wrong, close } = await open(options)
    await page.locator('#pools tr').first().waitFor()
    if (pictures) await page.waitForTimeout(7_000)
    // Tables scroll by themselves: the page is as wide as the screen.
    const [wide, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth])
    assert.ok(wide <= screen, `${name}: ${wide} > ${screen}`)
    await picture(page, name)
    assert.deepEqual(wrong, [])
    await close()
  }
  reads.kill()
  odd.kill()
})

test('nothing that it is told becomes markup, and no other site is answered', async () => {
  const { page, wrong, close } = await open()
  const row = page.locator('#pools tr', { hasText: ODD })
  await row.waitFor()
  assert.equal(await row.locator('td').first().evaluate((cell) => cell.firstChild.nodeValue), ODD)
  assert.equal(await page.locator('main script, main img, main iframe').count(), 0)
  assert.deepEqual(wrong, [])
  // What the policy forbids is not even possible by mistake.
  const markup = await page.evaluate(() => { try { document.body.innerHTML = '<b>x</b>'; return 'set' } catch (error) { return error.name } })
  assert.equal(markup, 'TypeError')
  await close()
  const foreign = await fetch(`${system.url}/status.json`, { headers: {
    authorization: `Basic ${Buffer.from(`${ADMIN.username}:${ADMIN.password}`).toString('base64')}`, origin: 'http://evil.example' } })
  assert.equal(foreign.status, 403)
})

test('it says so when pooler does not answer any more', async () => {
  const { page, close } = await open()
  await page.locator('#state', { hasText: 'running' }).waitFor()
  system.pooler.kill('SIGQUIT')
  await page.locator('#notice', { hasText: 'pooler does not answer' }).waitFor()
  await close()
})
