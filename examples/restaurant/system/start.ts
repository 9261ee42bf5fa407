import { parseArgs } from 'node:util'
import { API_NAMES, System } from './system.ts'

const { values } = parseArgs({
  options: { port: { type: 'string', default: '8080' }, balancer: { type: 'string', default: 'nginx' } },
})
const { balancer } = values
const port = Number(values.port)
if (balancer !== 'nginx' && balancer !== 'haproxy') throw new Error(`--balancer is nginx or haproxy, not "${balancer}".`)
if (!Number.isInteger(port) || port < 1 || port > 65535) throw new Error(`--port is a number up to 65535, not "${values.port}".`)

const tell = (event: string) => console.log(`${new Date().toLocaleTimeString('en-GB')}  ${event}`)
const starting = System.start({ port, balancer, tell })

let stopping = false
async function stop() {
  if (stopping) return
  stopping = true
  console.log('\nStopping everything')
  await starting.then((system) => system.stop(), () => {})
  process.exit(0)
}
process.on('SIGINT', stop)
process.on('SIGTERM', stop)

const system = await starting.catch((error) => {
  console.error(`\nIt does not start: ${error.message}`)
  process.exit(1)
})
if (!stopping) {
  console.log(`
Storefront    ${system.url}/
Admin         ${system.url}/admin/
Instances     ${API_NAMES.map((name) => system.apiUrl(name)).join('  ')}
DATABASE_URL  ${system.databaseUrl}
Console       psql '${system.consoleUrl}' -c 'SHOW NODES'
Load          examples/restaurant/load.sh ${system.url}
Logs          ${system.dir}

Kill any of these (kill -9 PID) and see what becomes of it; Ctrl-C stops everything.
${system.processes().map(({ program, pid }) => `  ${program.name.padEnd(8)}${pid}`).join('\n')}
`)
}
