// log.js LIBRARY FILE COUNT: logs COUNT lines with a rotating transport.
const [, , library, file, countText] = process.argv
const path = require('node:path')
const count = Number(countText)
const rest = i => String(i).repeat(990).slice(0, 990)

async function winston (transport) {
  const { createLogger, format } = require('winston')
  const log = createLogger({ format: format.printf(info => info.message), transports: [transport] })
  transport.on('error', err => console.error(String(err)))
  for (let i = 1; i <= count; i++) {
    log.info(`line ${i} ${rest(i)}`)
    // It writes between events, and cannot take much while it changes its file.
    if (i % 10 === 0) await new Promise(resolve => setTimeout(resolve, 2))
  }
  log.end()
  await new Promise(resolve => transport.on('finish', resolve))
}

const libraries = {
  winston: () => {
    const { transports } = require('winston')
    return winston(new transports.File({ filename: file, maxsize: 1_000_000 }))
  },
  'winston-tailable': () => {
    const { transports } = require('winston')
    return winston(new transports.File({ filename: file, maxsize: 1_000_000, maxFiles: 100, tailable: true }))
  },
  'winston-daily-rotate-file': () => {
    const Rotate = require('winston-daily-rotate-file')
    const { dir, name, ext } = path.parse(file)
    return winston(new Rotate({ dirname: dir, filename: `${name}-%DATE%${ext}`, maxSize: '1m' }))
  },
  'pino-roll': async () => {
    const roll = await require('pino-roll')({ file, size: '1m' })
    const log = require('pino')({ base: undefined, timestamp: false, formatters: { level: () => ({}) } }, roll)
    for (let i = 1; i <= count; i++) {
      log.info(`line ${i} ${rest(i)}`)
      if (i % 50 === 0) await new Promise(resolve => setTimeout(resolve, 5))
    }
    roll.end()
    await new Promise(resolve => roll.on('close', resolve))
  }
}
libraries[library]()
