import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'

export interface Program {
  name: string
  command: string[]
  log: string
  env?: Record<string, string>
  /** The user that it runs as, when this process is root's. */
  user?: string
}

/** A process of the system. It gets a process group of its own, so that Ctrl-C reaches only who stops all in order. */
export class Child {
  readonly exited: Promise<string>
  private readonly process: ChildProcess
  private ended = false
  private wasReady = false

  constructor(readonly program: Program) {
    // Should this process be killed, its children end, too.
    const guard = ['setpriv', '--pdeathsig=INT']
    if (program.user && process.getuid?.() === 0) {
      guard.push(`--reuid=${program.user}`, `--regid=${program.user}`, '--clear-groups')
    }
    const [first, ...rest] = [...guard, ...program.command] as [string, ...string[]]
    const log = openSync(program.log, 'a')
    this.process = spawn(first, rest, {
      detached: true, cwd: '/', stdio: ['ignore', log, log], env: { ...process.env, ...program.env },
    })
    closeSync(log)
    this.exited = new Promise((resolve) => {
      const end = (how: string) => {
        this.ended = true
        resolve(how)
      }
      this.process.on('error', (error) => end(error.message))
      this.process.on('exit', (code, signal) => {
        this.endGroup()
        end(signal ? `killed by ${signal}` : `exit code ${code}`)
      })
    })
  }

  get pid(): number {
    return this.process.pid ?? 0
  }

  get running(): boolean {
    return !this.ended
  }

  get ready(): boolean {
    return this.running && this.wasReady
  }

  kill(signal: NodeJS.Signals): void {
    if (this.running) this.process.kill(signal)
  }

  /** What it leaves behind: nginx's workers live on, and keep its port, when their master is killed. */
  private endGroup(): void {
    try {
      process.kill(-this.pid, 'SIGKILL')
    } catch {
      // Nobody is left, as a rule.
    }
  }

  /** Waits until `ready` says so; an exit, or `seconds` without, is an error with the end of the log. */
  async whenReady(ready: () => Promise<boolean>, seconds = 30): Promise<void> {
    const end = Date.now() + seconds * 1000
    while (!(await ready().catch(() => false))) {
      const why = this.ended ? `has ended (${await this.exited})` : `is not ready after ${seconds} s`
      if (this.ended || Date.now() > end) throw new Error(`${this.program.name} ${why}.\n${this.lastWords()}`)
      await delay(50)
    }
    this.wasReady = true
  }

  async stop(): Promise<void> {
    this.kill('SIGINT')
    if (!(await Promise.race([this.exited, delay(10_000, false, { ref: false })]))) this.kill('SIGKILL')
    await this.exited
  }

  lastWords(): string {
    const lines = readFileSync(this.program.log, 'utf8').trim().split('\n').slice(-15)
    return `The end of ${this.program.log}:\n  ${lines.join('\n  ')}`
  }
}
