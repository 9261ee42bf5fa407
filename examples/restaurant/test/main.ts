import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import type { Browser } from 'playwright-core'
import { Guests, percentile } from '../load/guests.ts'
import { System } from '../system/system.ts'
import { launch, ordersAppearLiveThroughAnotherInstance, pagesPollIfTheyHaveTo, pagesSurviveTheirInstance } from './browser.ts'
import { isSurvived, nothingIsLostOrDoubled, poolerFollows } from './killing.ts'
import * as orders from './orders.ts'
import * as pages from './pages.ts'
import * as sockets from './sockets.ts'

let system: System
let haproxy: string
let browser: Browser

// One system for all, and one after the other: each finds what those before have left.
describe('restaurant', { concurrency: false, timeout: 600_000 }, () => {
  before(async () => {
    system = await System.create({ port: 8080, balancer: 'nginx', tell: (event) => console.log(`  ${event}`) })
    await system.start()
    haproxy = await system.startHaproxy()
    browser = await launch()
  })
  after(async () => {
    await browser?.close()
    await system?.stop()
  })

  it('serves pages as a CDN does, through nginx', () => pages.areServedAsByACdn(system.url))
  it('serves pages as a CDN does, through HAProxy', () => pages.areServedAsByACdn(haproxy))

  it('carries out an order once, however often it comes', () => orders.areCarriedOutOnceHoweverOftenTheyCome(system))
  it('refuses what makes no sense, with the remedy', () => orders.thatMakeNoSenseAreRefusedWithTheRemedy(system))
  it('takes orders through the kitchen step by step', () => orders.goThroughTheKitchenStepByStep(system))
  it('reads from both replicas', () => orders.areReadOnReplicas(system))
  it('has an order on the next page of any instance, with replicas that are behind', () => orders.areOnTheNextPageOfAnyInstance(system))

  it('needs stickiness for long polling', () => sockets.pollingFailsWithoutStickiness(system))
  it('sends websockets anywhere, with nginx', () => sockets.websocketsGoAnywhere(system, system.url))
  it('sends websockets anywhere, with HAProxy', () => sockets.websocketsGoAnywhere(system, haproxy))
  it('keeps polling where it began, with nginx', () => sockets.pollingStaysWhereItBegan(system, system.url))
  it('keeps polling where it began, with HAProxy', () => sockets.pollingStaysWhereItBegan(system, haproxy))

  it('shows an order in the browser live through another instance', async (test) => {
    const { takenBy, hears } = await ordersAppearLiveThroughAnotherInstance(browser, system)
    test.diagnostic(`placed at ${takenBy}, seen through ${hears}`)
  })
  it('shows it in a browser that has to poll', () => pagesPollIfTheyHaveTo(browser, system))
  it('keeps a page alive when its instance is killed', async () => {
    await pagesSurviveTheirInstance(browser, system)
    await system.whenWhole()
  })

  describe('under load', () => {
    let guests: Guests
    before(() => { guests = new Guests([system.url, haproxy]).start({ browsing: 6, ordering: 12 }) })
    after(() => guests?.stop())

    it('survives an instance of the API, and nobody notices', async (test) => {
      test.diagnostic(await isSurvived(system, guests, 'api2', { unnoticed: true }))
    })
    it('survives a replica, and nobody notices', async (test) => {
      test.diagnostic(await isSurvived(system, guests, system.cluster.replicas[0]!.name, { unnoticed: true }))
    })
    it('survives the primary', async (test) => {
      const lost = system.cluster.primary
      test.diagnostic(await isSurvived(system, guests, lost.name))
      await poolerFollows(system)
      test.diagnostic(`${lost.name} was the primary, ${system.cluster.primary.name} is`)
    })
    it('survives the next primary', async (test) => {
      test.diagnostic(await isSurvived(system, guests, system.cluster.primary.name))
      await poolerFollows(system)
    })
    it('survives Redis', async (test) => test.diagnostic(await isSurvived(system, guests, 'redis')))
    it('survives nginx', async (test) => test.diagnostic(await isSurvived(system, guests, 'nginx')))
    it('survives pooler', async (test) => test.diagnostic(await isSurvived(system, guests, 'pooler')))
    it('has every order once in the end', async (test) => {
      await guests.stop()
      await nothingIsLostOrDoubled(system, guests)
      assert.ok(guests.foundPlaced > 0, 'no answer was lost on its way: this shows too little')
      test.diagnostic(`${guests.acknowledged.size} orders, ${guests.browsed} pages, ${guests.foundPlaced} orders found placed when sent again, p50 ${percentile(guests.times, 0.5)} ms`)
    })
  })
})
