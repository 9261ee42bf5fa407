import assert from 'node:assert/strict'

async function page(url: string): Promise<{ status: number; cache: string; encoding: string; text: string }> {
  const response = await fetch(url)
  const { headers } = response
  return {
    status: response.status, cache: headers.get('Cache-Control') ?? '', encoding: headers.get('Content-Encoding') ?? '',
    text: await response.text(),
  }
}

/** The pages as a CDN serves them. */
export async function areServedAsByACdn(url: string) {
  const storefront = await page(`${url}/`)
  const admin = await page(`${url}/admin/`)
  assert.match(storefront.text, /<title>The Restaurant</)
  assert.match(admin.text, /<title>Kitchen/)
  assert.equal(storefront.cache, 'no-cache')
  assert.equal(admin.cache, 'no-cache')

  // Addresses within the pages are the pages' own business.
  assert.equal((await page(`${url}/orders/7f8a0000-0000-4000-8000-000000000000`)).text, storefront.text)
  assert.equal((await page(`${url}/admin/all`)).text, admin.text)
  assert.equal((await page(`${url}/admin`)).text, admin.text)

  const script = storefront.text.match(/\/assets\/[^"]+\.js/)?.[0]
  assert.ok(script, 'the page names its script')
  const asset = await page(url + script)
  assert.equal(asset.status, 200)
  assert.equal(asset.cache, 'public, max-age=31536000, immutable')
  assert.equal(asset.encoding, 'gzip')

  // A script that is gone is no page: a browser would fail on it in stranger ways.
  for (const missing of ['/assets/gone-12345678.js', '/gone.js']) assert.equal((await page(url + missing)).status, 404)
  const unknown = await page(`${url}/api/nothing`)
  assert.equal(unknown.status, 404)
  assert.match(unknown.text, /"error"/)
}
