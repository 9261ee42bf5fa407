import { readOptions, wholeNumber, wrong } from './options.ts'
import { API_NAMES, System } from './system.ts'

const { values } = readOptions({
  options: { port: { type: 'string', default: '8080' }, balancer: { type: 'string', default: 'nginx' } },
})
const { balancer } = values
const port = wholeNumber('port', values.port, 65535)
if (balancer !== 'nginx' && balancer !== 'haproxy') wrong(`--balancer is nginx or haproxy, not "${balancer}".`)

const tell = (event: string) => console.log(`${new Date().toLocaleTimeString('en-GB')}  ${event}`)
const system = await System.create({ port, balancer, tell })

let stopping = false
async function stop(code: number) {
  if (stopping) return
  stopping = true
  console.log('\nStopping everything')
  await system.stop()
  process.exit(code)
}
process.on('SIGINT', () => void stop(0))
process.on('SIGTERM', () => void stop(0))

await system.start().catch((error) => {
  if (stopping) return
  console.error(`\nIt does not start: ${error.message}`)
  return stop(1)
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
