function needed(name: string): string {
  const value = process.env[name]
  if (value) return value
  console.error(`${name} is not set. examples/restaurant/start.sh sets all that an instance needs.`)
  process.exit(1)
}

/** Who this is, in the header X-Instance and in `takenBy` of an order. */
export const INSTANCE = needed('INSTANCE')
export const PORT = Number(needed('PORT'))
/** pooler's address; nothing here knows about the servers behind it. */
export const DATABASE_URL = needed('DATABASE_URL')
export const REDIS_URL = needed('REDIS_URL')
