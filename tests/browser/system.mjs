// PostgreSQL (a primary and a replica) and pooler in front of them, in a directory of their own, for as long as the test runs.

import { spawn, spawnSync } from 'node:child_process'
import { chownSync, mkdirSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export const ODD = '<script>alert(1)</script>'
export const ADMIN = { username: 'admin', password: 'päss: of admin' }

const id = (flag) => Number(spawnSync('id', [flag, 'postgres'], { encoding: 'utf8' }).stdout)
const owner = process.getuid() === 0 ? { uid: id('-u'), gid: id('-g') } : {}

/** PostgreSQL's programs, the newest. */
function programs() {
  const root = '/usr/lib/postgresql'
  const found = readdirSync(root).filter((v) => /^\d+$/.test(v)).sort((a, b) => Number(b) - Number(a))
  if (!found.length) throw new Error(`there is no PostgreSQL in ${root}`)
  return join(root, found[0], 'bin')
}

function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer().on('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
}

export async function eventually(what, is, seconds = 30) {
  const until = Date.now() + seconds * 1000
  for (;;) {
    const found = await is()
    if (found) return found
    if (Date.now() > until) throw new Error(`not in ${seconds} s: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

const listens = (port) => new Promise((resolve) => {
  const socket = connect(port, '127.0.0.1')
  socket.on('connect', () => { socket.destroy(); resolve(true) }).on('error', () => resolve(false))
})

export class System {
  children = new Set()
  bin = programs()

  static async start() {
    const system = new System()
    try {
      await system.begin()
    } catch (error) {
      await system.stop()
      throw error
    }
    return system
  }

  async begin() {
    this.dir = mkdtempSync(join(tmpdir(), 'pooler-browser-'))
    if (owner.uid) chownSync(this.dir, owner.uid, owner.gid)
    this.ports = { primary: await freePort(), replica: await freePort(), pooler: await freePort(), http: await freePort() }
    this.run('initdb', ['-D', this.data('primary'), '-A', 'trust', '-U', 'postgres', '-E', 'UTF8', '--no-sync'])
    await this.postgres('primary')
    this.sql('primary', 'CREATE ROLE app LOGIN', 'CREATE DATABASE shop OWNER app')
    this.run('pg_basebackup', ['-h', '127.0.0.1', '-p', this.ports.primary, '-U', 'postgres', '-D', this.data('replica'), '-R', '-X', 'stream', '-c', 'fast'])
    await this.postgres('replica')
    writeFileSync(join(this.dir, 'pooler.toml'), this.config(), { mode: 0o600 })
    this.pooler = this.child(process.env.POOLER, ['run', '-c', join(this.dir, 'pooler.toml')], 'pooler', {})
    await eventually('pooler listens', () => listens(this.ports.http))
  }

  config() {
    const { primary, replica, pooler, http } = this.ports
    return `[pooler]
listen_port = ${pooler}
metrics_addr = ${http}
status_page = true
query_statistics = 100
default_pool_size = 4
admin_users = ["admin"]
node_check_interval = "300ms"
[databases.shop]
nodes = ["127.0.0.1:${primary}", "127.0.0.1:${replica}"]
[databases."${ODD}"]
host = "127.0.0.1"
port = ${primary}
dbname = "shop"
[users.app]
password = "secret of app"
[users.admin]
password = "${ADMIN.password}"
`
  }

  get url() { return `http://127.0.0.1:${this.ports.http}` }
  data(name) { return join(this.dir, name) }

  run(program, args) {
    const done = spawnSync(join(this.bin, program), args.map(String), { encoding: 'utf8', ...owner })
    if (done.status !== 0) throw new Error(`${program} failed: ${done.stderr}`)
    return done.stdout
  }

  sql(node, ...texts) {
    for (const text of texts) this.run('psql', ['-h', '127.0.0.1', '-p', this.ports[node], '-U', 'postgres', '-qAtc', text])
  }

  child(program, args, name, options) {
    mkdirSync(join(this.dir, 'log'), { recursive: true })
    const log = openSync(join(this.dir, 'log', name), 'a')
    const child = spawn(program, args.map(String), { stdio: ['ignore', log, log], ...options })
    this.children.add(child)
    child.on('exit', () => this.children.delete(child))
    child.on('error', (error) => { throw error })
    return child
  }

  log(name) { return readFileSync(join(this.dir, 'log', name), 'utf8') }

  async postgres(name) {
    this[name] = this.child(join(this.bin, 'postgres'), ['-D', this.data(name), '-p', this.ports[name], '-k', '', '-c', 'listen_addresses=127.0.0.1', '-c', 'fsync=off', '-c', 'wal_level=replica'], name, owner)
    await eventually(`${name} answers`, () => spawnSync(join(this.bin, 'pg_isready'), ['-q', '-h', '127.0.0.1', '-p', String(this.ports[name])]).status === 0)
  }

  /** Clients that work for so many seconds. */
  load(database, clients, seconds, script) {
    const file = join(this.dir, `load-${this.children.size}.sql`)
    writeFileSync(file, script)
    const env = { ...process.env, PGPASSWORD: 'secret of app' }
    return this.child(join(this.bin, 'pgbench'), ['-n', '-h', '127.0.0.1', '-p', this.ports.pooler, '-U', 'app', '-c', clients, '-T', seconds, '-R', 400, '-f', file, database], 'pgbench', { env })
  }

  async failOver() {
    this.primary.kill('SIGQUIT')
    this.run('pg_ctl', ['promote', '-D', this.data('replica')])
  }

  async stop() {
    for (const child of this.children) child.kill(child === this.primary || child === this.replica ? 'SIGQUIT' : 'SIGTERM')
    const over = () => this.children.size === 0
    await eventually('all ended', over, 10).catch(() => { for (const child of this.children) child.kill('SIGKILL') })
    if (this.dir) rmSync(this.dir, { recursive: true, force: true })
  }
}
