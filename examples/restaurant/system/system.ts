import { randomBytes } from 'node:crypto'
import { rmSync } from 'node:fs'
import { chmod, cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { Child, type Program } from './child.ts'
import { Cluster } from './failover.ts'
import { freePort, freePorts, listens } from './net.ts'
import { makeDirectory, NODES, PostgresNode } from './postgres.ts'

export const HERE = join(import.meta.dirname, '..')
export const API_NAMES = ['api1', 'api2', 'api3'] as const
const DATABASE = 'restaurant'
/** So long something that has died stays away, for everyone to see that the rest goes on. */
const AWAY = 2000

export interface Options {
  /** Where the pages are reached; another port if it is taken. */
  port: number
  balancer: 'nginx' | 'haproxy'
  tell: (event: string) => void
}

/** The whole of it: every process, started in order, and started again when it dies. */
export class System {
  readonly children = new Map<string, Child>()
  cluster!: Cluster
  readonly password = randomBytes(12).toString('hex')
  private stopping = false
  private starting: Promise<void> = Promise.resolve()
  /** Changes of roles happen one after the other. */
  private roles: Promise<void> = Promise.resolve()

  private constructor(readonly dir: string, readonly ports: Record<string, number>, private readonly options: Options) {}

  /** Nothing runs yet: `start` does that, and `stop` ends it at any time. */
  static async create(options: Options): Promise<System> {
    const dir = await mkdtemp(join(tmpdir(), 'restaurant-'))
    // The user that PostgreSQL runs as has to pass.
    await chmod(dir, 0o755)
    // Also when nobody had the time to stop it all: the children end by themselves then.
    process.once('exit', () => rmSync(dir, { recursive: true, force: true, maxRetries: 3 }))
    const ports = {
      ...await freePorts('POOLER', 'REDIS', 'CDN', 'SECOND_EDGE', 'API1', 'API2', 'API3', 'DB1', 'DB2', 'DB3'),
      EDGE: await freePort(options.port),
    }
    return new System(dir, ports, options)
  }

  start(): Promise<void> {
    this.starting = this.startAll()
    return this.starting
  }

  get url(): string {
    return `http://127.0.0.1:${this.ports.EDGE}`
  }

  get databaseUrl(): string {
    return `postgres://restaurant:${this.password}@127.0.0.1:${this.ports.POOLER}/${DATABASE}`
  }

  get consoleUrl(): string {
    return `postgres://admin:${this.password}@127.0.0.1:${this.ports.POOLER}/pooler`
  }

  apiUrl(name: (typeof API_NAMES)[number]): string {
    return `http://127.0.0.1:${this.ports[name.toUpperCase()]}`
  }

  /** Everything that may be killed. */
  processes(): Child[] {
    return [...this.children.values(), ...this.cluster.nodes.flatMap(({ child }) => child ?? [])]
  }

  child(name: string): Child {
    const found = this.processes().find(({ program }) => program.name === name)
    if (!found) throw new Error(`There is no process "${name}".`)
    return found
  }

  /** Asks pooler's console: SHOW NODES, SHOW ROUTES, … */
  async console(command: string): Promise<Record<string, string>[]> {
    const client = new pg.Client(this.consoleUrl)
    client.on('error', () => {})
    await client.connect()
    try {
      return (await client.query(command)).rows
    } finally {
      await client.end()
    }
  }

  /** Waits until all that should run does: both replicas stream, and pooler reads from them. */
  async whenWhole(seconds = 60): Promise<void> {
    const end = Date.now() + seconds * 1000
    for (;;) {
      this.checkStopping()
      await Promise.race([this.roles, delay(seconds * 1000, undefined, { ref: false })])
      // Through all of it. pooler looks at its nodes once it has a user of theirs.
      await fetch(`${this.url}/api/menu`).then((response) => response.text()).catch(() => {})
      const ready = this.processes().every((child) => child.ready)
      if (ready && (await this.cluster.isWhole()) && (await this.nodesInUse()) === NODES.length) return
      if (Date.now() > end) throw new Error(`Not everything is back after ${seconds} s; the logs in ${this.dir} tell more.`)
      await delay(100)
    }
  }

  private async nodesInUse(): Promise<number> {
    const nodes = await this.console('SHOW NODES').catch(() => [])
    return nodes.filter(({ role }) => role === 'primary' || role === 'replica').length
  }

  async stop(): Promise<void> {
    this.stopping = true
    if (this.cluster) this.cluster.stopped = true
    await this.stopAll()
    // What was about to start, or to be made a replica, fails by now; what it may have started meanwhile goes as well.
    await Promise.allSettled([this.starting, this.roles])
    await this.stopAll()
    await rm(this.dir, { recursive: true, force: true })
  }

  private async stopAll(): Promise<void> {
    // Those that ask before those that answer.
    for (const child of [...this.children.values()].reverse()) await child.stop()
    await Promise.all((this.cluster?.nodes ?? []).map(({ child }) => child?.stop()))
  }

  private checkStopping(): void {
    if (this.stopping) throw new Error('It is being stopped.')
  }

  private async startAll(): Promise<void> {
    const { ports, options: { tell } } = this
    tell('a primary and two replicas')
    await this.startDatabases()
    tell('pooler in front of them, and Redis')
    const binary = process.env.POOLER
    if (!binary) throw new Error('POOLER does not say where the program is: examples/restaurant/start.sh builds it.')
    await this.run({
      name: 'pooler', command: [binary, '-c', join(HERE, 'config/pooler.toml')],
      env: { ...this.portVariables(), APP_PASSWORD: this.password, ADMIN_PASSWORD: this.password },
    }, () => listens(ports.POOLER!))
    await this.run({
      name: 'redis', command: ['redis-server', '--port', `${ports.REDIS}`, '--bind', '127.0.0.1', '--save', '', '--dir', this.dir],
    }, () => listens(ports.REDIS!))
    tell('three instances of the API')
    await Promise.all(API_NAMES.map((name) => this.run({
      name, command: [process.execPath, '--import', import.meta.resolve('tsx'), join(HERE, 'api/main.ts')],
      env: {
        INSTANCE: name, PORT: `${ports[name.toUpperCase()]}`, DATABASE_URL: this.databaseUrl,
        REDIS_URL: `redis://127.0.0.1:${ports.REDIS}`,
      },
    }, () => listens(ports[name.toUpperCase()]!))))
    tell(`the pages, and ${this.options.balancer} in front of all`)
    await this.startNginx()
    if (this.options.balancer === 'haproxy') await this.startHaproxy(ports.EDGE!)
    await this.whenWhole()
  }

  private async startDatabases(): Promise<void> {
    const dir = join(this.dir, 'postgres')
    await makeDirectory(dir)
    const nodes = await Promise.all(NODES.map((name) => PostgresNode.at(dir, name, this.ports[name.toUpperCase()]!)))
    const [primary, ...replicas] = nodes as [PostgresNode, ...PostgresNode[]]
    this.cluster = new Cluster(primary, nodes, this.options.tell)
    await primary.create()
    await primary.start()
    await primary.ask(`CREATE ROLE restaurant LOGIN PASSWORD '${this.password}'`)
    await primary.ask(`CREATE DATABASE ${DATABASE} OWNER restaurant`)
    await primary.ask(`SET ROLE restaurant; ${await readFile(join(HERE, 'schema.sql'), 'utf8')}`, [], DATABASE)
    for (const replica of replicas) {
      this.checkStopping()
      await replica.copy(primary)
      await replica.start()
    }
    for (const node of nodes) this.watchNode(node)
  }

  private async startNginx(): Promise<void> {
    await cp(join(HERE, 'dist'), join(this.dir, 'pages'), { recursive: true })
    // With HAProxy in front, nginx's own balancer has another port.
    const edge = this.options.balancer === 'nginx' ? this.ports.EDGE : this.ports.SECOND_EDGE
    const values: Record<string, string> = { ...this.portVariables(), EDGE_PORT: `${edge}`, DIR: this.dir }
    const template = await readFile(join(HERE, 'config/nginx.conf'), 'utf8')
    const config = template.replace(/\$\{([A-Z0-9_]+)\}/g, (whole, name) => values[name] ?? whole)
    // Root's workers would be nobody's: they read the pages, and that is all.
    const user = process.getuid?.() === 0 ? 'user www-data;\n' : ''
    await writeFile(join(this.dir, 'nginx.conf'), user + config)
    await this.run({ name: 'nginx', command: ['/usr/sbin/nginx', '-c', join(this.dir, 'nginx.conf')] }, () => listens(edge!))
  }

  /** The balancer of nginx's with HAProxy, at this port. */
  async startHaproxy(port = this.ports.SECOND_EDGE!): Promise<string> {
    await this.run({
      name: 'haproxy', command: ['/usr/sbin/haproxy', '-db', '-f', join(HERE, 'config/haproxy.cfg')],
      env: { ...this.portVariables(), EDGE_PORT: `${port}` },
    }, () => listens(port))
    return `http://127.0.0.1:${port}`
  }

  private portVariables(): Record<string, string> {
    return Object.fromEntries(Object.entries(this.ports).map(([name, port]) => [`${name}_PORT`, `${port}`]))
  }

  /** Runs something until all is stopped. */
  private async run(program: Omit<Program, 'log'>, ready: () => Promise<boolean>): Promise<void> {
    this.checkStopping()
    const child = new Child({ ...program, log: join(this.dir, `${program.name}.log`) })
    this.children.set(program.name, child)
    await child.whenReady(ready)
    void child.exited.then(async (how) => {
      if (this.stopping) return
      this.options.tell(`${program.name} has died (${how})`)
      await this.restart(program, ready)
    })
  }

  private async restart(program: Omit<Program, 'log'>, ready: () => Promise<boolean>): Promise<void> {
    await delay(AWAY)
    if (this.stopping) return
    try {
      await this.run(program, ready)
      this.options.tell(`${program.name} is back`)
    } catch (error) {
      this.failed(error)
      await this.restart(program, ready)
    }
  }

  private watchNode(node: PostgresNode): void {
    void node.child?.exited.then((how) => {
      if (this.stopping) return
      const wasPrimary = node === this.cluster.primary
      this.options.tell(`${node.name}, ${wasPrimary ? 'the primary' : 'a replica'}, has died (${how})`)
      const change = async () => {
        if (wasPrimary) await this.cluster.promote()
        else {
          await delay(AWAY)
          await this.cluster.restart(node)
        }
        this.watchNode(node)
      }
      const before = wasPrimary ? Promise.resolve() : this.roles
      this.roles = before.then(change).catch((error) => this.failed(error))
    })
  }

  private failed(error: unknown): void {
    if (!this.stopping) this.options.tell(`! ${error instanceof Error ? error.message : error}`)
  }
}
