import { PrismaPg } from '@prisma/adapter-pg'
import { Prisma, PrismaClient } from './generated/client.ts'
import { DATABASE_URL } from './environment.ts'

// Prepared statements and Prisma's own pool stay as they are. Two requests of one user come by different connections, and
// often by different instances: nothing is done about that here either. pooler sends a read only to a replica that has
// what any client was told is committed (`read_consistency = "fresh"`, its default).
export const database = new PrismaClient({ adapter: new PrismaPg({ connectionString: DATABASE_URL, max: 10 }) })

/** The row is there already. */
export const isDuplicate = (error: unknown) => error instanceof Prisma.PrismaClientKnownRequestError && error.code === 'P2002'

/** The database did not carry it out, or nobody knows whether it did (a lost connection amid COMMIT). */
export const isDatabaseError = (error: unknown) =>
  error instanceof Prisma.PrismaClientKnownRequestError ||
  error instanceof Prisma.PrismaClientUnknownRequestError ||
  error instanceof Prisma.PrismaClientInitializationError ||
  (error instanceof Error && error.name === 'DriverAdapterError')
