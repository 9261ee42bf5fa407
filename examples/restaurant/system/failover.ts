import { setTimeout as delay } from 'node:timers/promises'
import type { PostgresNode } from './postgres.ts'

interface Received {
  received: string
  streaming: boolean
}

/** A primary and its replicas, and the little of Patroni's work that a demo needs: pooler is told nothing of it. */
export class Cluster {
  constructor(public primary: PostgresNode, readonly nodes: PostgresNode[], private readonly tell: (event: string) => void) {}

  /** Nothing is waited for any more. */
  stopped = false

  get replicas(): PostgresNode[] {
    return this.nodes.filter((node) => node !== this.primary)
  }

  /**
   * Promotes a replica after the primary has died. Commits were acknowledged when one of two replicas had them, so the one that
   * has received most has all of them, provided that both are asked.
   */
  async promote(): Promise<void> {
    const lost = this.primary
    const received = await Promise.all(this.replicas.map((node) => this.lastWordOf(lost, node)))
    const [next] = received.sort((a, b) => (a.position > b.position ? -1 : 1))
    if (!next) throw new Error('There is no replica to promote.')
    await next.node.ask('SELECT pg_promote(wait => true)')
    this.primary = next.node
    this.tell(`${next.node.name} is promoted`)
    await Promise.all(this.replicas.filter((node) => node !== lost).map((node) => node.follow(next.node)))
    await lost.copy(next.node)
    await lost.start()
    this.tell(`${lost.name} is back, as a replica of ${next.node.name}`)
  }

  /** How far a replica has got, once it cannot receive any more: what is left of the lost primary is gone then. */
  private async lastWordOf(lost: PostgresNode, node: PostgresNode): Promise<{ node: PostgresNode; position: bigint }> {
    for (let told = false; ; ) {
      const [state] = await node.ask<Received>(`SELECT
        greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn AS received,
        EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') AS streaming`).catch(() => [])
      if (state && !state.streaming) return { node, position: BigInt(state.received) }
      if (!state && !told) this.tell(`${lost.name} and ${node.name} are both gone: nothing is promoted until ${node.name} is back`)
      told ||= !state
      if (this.stopped) throw new Error('stopped while a replica was to be promoted')
      await delay(50)
    }
  }

  /** Starts a replica again that has died. What is left of its processes may take a moment to go. */
  async restart(node: PostgresNode): Promise<void> {
    for (let tries = 0; ; tries++) {
      try {
        await node.start()
        break
      } catch (error) {
        if (tries === 20) throw error
        await delay(500)
      }
    }
    this.tell(`${node.name} is back`)
  }

  /** Both replicas receive from the primary, and have all that it has. */
  async isWhole(): Promise<boolean> {
    const rows = await this.primary.ask(`SELECT FROM pg_stat_replication
      WHERE state = 'streaming' AND pg_wal_lsn_diff(pg_current_wal_flush_lsn(), replay_lsn) < 1000000`).catch(() => [])
    return rows.length === this.replicas.length
  }
}
