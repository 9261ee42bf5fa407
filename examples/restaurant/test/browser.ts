import assert from 'node:assert/strict'
import { chromium, type Browser, type Page } from 'playwright-core'
import type { System } from '../system/system.ts'
import { eventually, type ApiName } from './support.ts'

const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync']

/** Each launch has a user-data-dir of its own, which goes with it. */
export const launch = (): Promise<Browser> =>
  chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS })

async function open(browser: Browser, url: string): Promise<Page> {
  const page = await (await browser.newContext()).newPage()
  page.on('pageerror', (error) => { throw error })
  await page.goto(url)
  return page
}

/** The instance that a page hears from. */
async function liveFrom(page: Page): Promise<ApiName> {
  const text = await page.locator('#live', { hasText: 'live from' }).textContent()
  return text!.replace('live from ', '') as ApiName
}

async function order(page: Page, customer: string): Promise<{ id: string; takenBy: ApiName }> {
  await page.locator('[data-dish="4"] .more').click()
  await page.locator('[data-dish="8"] .more').click()
  await page.locator('[data-dish="8"] .more').click()
  await page.getByLabel('Name').fill(customer)
  await page.getByLabel('Table').fill('12')
  await page.locator('#order').click()
  await page.waitForURL('**/orders/*')
  const takenBy = await page.locator('#taken-by').textContent()
  return { id: new URL(page.url()).pathname.split('/')[2]!, takenBy: takenBy!.replace('taken by ', '') as ApiName }
}

export async function ordersAppearLiveThroughAnotherInstance(browser: Browser, system: System) {
  const kitchen = await open(browser, `${system.url}/admin/`)
  const guest = await open(browser, `${system.url}/`)
  const hears = await liveFrom(kitchen)

  // The balancer sends requests to the instances in turn: soon one is taken by another than the kitchen hears from.
  const placed = await eventually('an order was taken by another instance', async () => {
    await guest.goto(`${system.url}/`)
    const found = await order(guest, 'Marie')
    await kitchen.locator(`[data-order="${found.id}"]`).waitFor()
    return found.takenBy !== hears && found
  })
  const row = kitchen.locator(`[data-order="${placed.id}"]`)
  assert.match((await row.textContent())!, /table 12 · Marie/)
  assert.match((await row.textContent())!, /1 × Mushroom risotto, 2 × Lemon tart/)

  // And back: the guest sees what the kitchen does.
  await row.getByRole('button', { name: 'cooking' }).click()
  await guest.locator('.status', { hasText: 'cooking' }).waitFor()
  await row.getByRole('button', { name: 'ready' }).click()
  await guest.locator('.status', { hasText: 'ready' }).waitFor()

  // The address of an order is a page like any other, also for a browser that comes there first.
  await guest.reload()
  await guest.locator('.status', { hasText: 'ready' }).waitFor()
  await row.getByRole('button', { name: 'served' }).click()
  await row.waitFor({ state: 'detached' })
  await kitchen.getByRole('link', { name: 'All orders' }).click()
  await row.waitFor()
  await Promise.all([kitchen.context().close(), guest.context().close()])
  return { hears, takenBy: placed.takenBy }
}

/** The kitchen's page goes on when the instance that it hears from is killed. */
export async function pagesSurviveTheirInstance(browser: Browser, system: System) {
  const kitchen = await open(browser, `${system.url}/admin/`)
  const guest = await open(browser, `${system.url}/`)
  const lost = await liveFrom(kitchen)
  system.child(lost).kill('SIGKILL')
  const placed = await order(guest, 'Survivor')
  await kitchen.locator(`[data-order="${placed.id}"]`).waitFor()
  await eventually('the page hears from another instance', async () => (await liveFrom(kitchen)) !== lost)
  await Promise.all([kitchen.context().close(), guest.context().close()])
}

/** Where no websocket passes. */
export async function pagesPollIfTheyHaveTo(browser: Browser, system: System) {
  const kitchen = await open(browser, `${system.url}/admin/?transport=polling`)
  const guest = await open(browser, `${system.url}/`)
  await liveFrom(kitchen)
  const placed = await order(guest, 'Patience')
  await kitchen.locator(`[data-order="${placed.id}"]`).waitFor()
  await Promise.all([kitchen.context().close(), guest.context().close()])
}
