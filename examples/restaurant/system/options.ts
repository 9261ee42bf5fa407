import { parseArgs, type ParseArgsConfig } from 'node:util'

/** Ends with what is wrong, in one line. */
export function wrong(message: string): never {
  console.error(message)
  process.exit(2)
}

/** The options of this process; --help of its script tells them. */
export function readOptions<Config extends ParseArgsConfig>(config: Config) {
  try {
    return parseArgs(config)
  } catch (error) {
    wrong(`${error instanceof Error ? error.message : error} (--help tells the options.)`)
  }
}

export function wholeNumber(name: string, value: string | undefined, most: number): number {
  const number = Number(value)
  if (value?.trim() && Number.isInteger(number) && number >= 0 && number <= most) return number
  wrong(`--${name} has to be a whole number up to ${most}, not "${value}".`)
}
