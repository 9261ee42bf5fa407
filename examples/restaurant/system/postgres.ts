import { execFile } from 'node:child_process'
import { appendFile, mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import pg from 'pg'
import { Child } from './child.ts'

const run = promisify(execFile)
export type NodeName = 'db1' | 'db2' | 'db3'
export const NODES: NodeName[] = ['db1', 'db2', 'db3']
/** PostgreSQL refuses root; Debian's packages make this user. */
const USER = 'postgres'

/** Where the programs of Debian's newest PostgreSQL are. */
async function programs(): Promise<string> {
  const versions = await readdir('/usr/lib/postgresql').catch(() => [])
  const newest = versions.map(Number).sort((a, b) => b - a)[0]
  if (newest) return `/usr/lib/postgresql/${newest}/bin`
  throw new Error('There is no PostgreSQL in /usr/lib/postgresql: run examples/restaurant/start.sh, which installs it.')
}

/** One PostgreSQL server; which role it has is the business of failover.ts. */
export class PostgresNode {
  child: Child | undefined

  private constructor(readonly name: NodeName, readonly dir: string, readonly port: number, private readonly bin: string) {}

  /** `dir` belongs to the user that PostgreSQL runs as. */
  static async at(dir: string, name: NodeName, port: number): Promise<PostgresNode> {
    return new PostgresNode(name, dir, port, await programs())
  }

  private get data() {
    return `${this.dir}/${this.name}`
  }

  private async program(name: string, ...options: string[]): Promise<void> {
    const step = process.getuid?.() === 0 ? ['setpriv', `--reuid=${USER}`, `--regid=${USER}`, '--clear-groups'] : []
    const [first, ...rest] = [...step, `${this.bin}/${name}`, ...options] as [string, ...string[]]
    await run(first, rest, { cwd: '/' }).catch((error) => {
      throw new Error(`${name} of ${this.name} has failed:\n${error.stderr || error.message}`)
    })
  }

  /** An empty cluster: the first primary. */
  async create(): Promise<void> {
    await this.program('initdb', '-D', this.data, '-U', USER, '-A', 'trust', '-E', 'UTF8', '--locale=C', '-N')
    await writeFile(`${this.data}/pg_hba.conf`, 'local all,replication all trust\nhost all all 127.0.0.1/32 scram-sha-256\n')
  }

  /** A copy of the primary as it is now, which then follows it. */
  async copy(primary: PostgresNode): Promise<void> {
    await rm(this.data, { recursive: true, force: true })
    await this.program('pg_basebackup', '-D', this.data, '-h', this.dir, '-p', `${primary.port}`, '-U', USER,
      '-R', '-c', 'fast', '-X', 'stream')
    // The last line counts.
    await appendFile(`${this.data}/postgresql.auto.conf`, `primary_conninfo = '${this.upstream(primary)}'\n`)
  }

  private upstream(primary: PostgresNode): string {
    return `host=${this.dir} port=${primary.port} user=${USER} application_name=${this.name}`
  }

  async start(): Promise<void> {
    const options = {
      listen_addresses: '127.0.0.1', port: this.port, unix_socket_directories: this.dir, cluster_name: this.name,
      max_connections: 100, shared_buffers: '64MB', max_wal_size: '1GB', wal_keep_size: '256MB', jit: 'off',
      // A commit is acknowledged when a replica has it, too: a primary may die and take nothing along that anyone was told.
      synchronous_standby_names: `ANY 1 (${NODES.join(', ')})`,
      // Processes are killed here, and not machines: nothing has to outlive a power failure.
      fsync: 'off', full_page_writes: 'off',
    }
    const settings = Object.entries(options).flatMap(([name, value]) => ['-c', `${name}=${value}`])
    this.child = new Child({
      name: this.name, command: [`${this.bin}/postgres`, '-D', this.data, ...settings],
      log: `${this.dir}/${this.name}.log`, user: USER,
    })
    await this.child.whenReady(async () => (await this.ask('SELECT 1')).length === 1)
  }

  /** Asks this server itself, past pooler, as a superuser. */
  async ask<Row extends pg.QueryResultRow>(sql: string, values: unknown[] = [], database = 'postgres'): Promise<Row[]> {
    const client = new pg.Client({
      host: this.dir, port: this.port, user: USER, database, connectionTimeoutMillis: 2000,
      // What the example's own scripts write waits for no replica: at first there is none.
      options: '-c synchronous_commit=local',
    })
    // A server that dies ends the connection, too; the query tells.
    client.on('error', () => {})
    await client.connect()
    try {
      return (await client.query<Row>(sql, values)).rows
    } finally {
      await client.end().catch(() => {})
    }
  }

  /** Streams from this one from now on. */
  async follow(primary: PostgresNode): Promise<void> {
    await this.ask(`ALTER SYSTEM SET primary_conninfo = '${this.upstream(primary)}'`)
    await this.ask('SELECT pg_reload_conf()')
  }

  /** What is committed is seen here so much later. */
  async delay(time: string): Promise<void> {
    await this.ask(`ALTER SYSTEM SET recovery_min_apply_delay = '${time}'`)
    await this.ask('SELECT pg_reload_conf()')
  }
}

export async function makeDirectory(dir: string): Promise<void> {
  await mkdir(dir, { mode: 0o700 })
  if (process.getuid?.() === 0) {
    await run('chown', [`${USER}:${USER}`, dir]).catch(() => {
      throw new Error(`There is no user ${USER}: install the package postgresql-common.`)
    })
  }
}
