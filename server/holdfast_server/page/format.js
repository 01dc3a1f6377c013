// Numbers and times in words.
//
// Rule of this file: binary units, three digits that count, and no more precision than is known.

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** `1.50 GiB`, in parts where number and unit are set apart. */
export function parts(bytes) {
  let unit = 0
  while (bytes >= 999.5 && unit < UNITS.length - 1) {
    bytes /= 1024
    unit += 1
  }
  const digits = unit === 0 || bytes >= 100 ? 0 : bytes >= 10 ? 1 : 2
  return [bytes.toFixed(digits), UNITS[unit]]
}

export function size(bytes) {
  return parts(bytes).join(' ')
}

/** Of a round number: `10 MiB/s`. */
export function scale(rate) {
  const [number, unit] = parts(rate)
  return `${parseFloat(number)} ${unit}/s`
}

export function speed(rate) {
  return `${size(rate)}/s`
}

/** Whole percent, and 100 only when all of it is there. */
export function percent(part, whole) {
  if (whole === null) return ''
  return `${whole === 0 ? 100 : Math.min(Math.floor((part / whole) * 100), part < whole ? 99 : 100)} %`
}

/** `8 s`, `4 min 10 s`, `3 h 5 min`, `2 d 4 h`. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds))
  if (whole < 60) return `${whole} s`
  const [large, small, factor, names] =
    whole < 3600 ? [60, 1, 60, ['min', 's']] : whole < 86400 ? [3600, 60, 60, ['h', 'min']] : [86400, 3600, 24, ['d', 'h']]
  const first = Math.floor(whole / large)
  const second = Math.floor(whole / small) % factor
  return second ? `${first} ${names[0]} ${second} ${names[1]}` : `${first} ${names[0]}`
}

/** `just now`, `4 min ago`, `yesterday`, and then the date. */
export function ago(date, now) {
  const seconds = (now - date) / 1000
  if (seconds < 45) return 'just now'
  if (seconds < 3570) return `${Math.round(seconds / 60)} min ago`
  if (seconds < 86400) return `${Math.round(seconds / 3600)} h ago`
  return new Date(date).toLocaleDateString(undefined, { dateStyle: 'medium' })
}
