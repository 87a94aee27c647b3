// Formats numbers and times like the text log (tcptrace/core/src/duration.rs).

const UNITS = [["µs", 1e3], ["ms", 1e6], ["s", 1e9]];

/** Returns `n / by`, rounded half up. */
function divRound(n, by) {
  return Math.floor(n / by) + (n % by >= Math.ceil(by / 2) ? 1 : 0);
}

/** Formats a duration in nanoseconds with four digits: `23.41 µs`. */
function human(ns) {
  if (ns === null || ns === undefined) return "-";
  if (ns < 0) return "−" + human(-ns);
  if (ns < 1000) return `${ns} ns`;
  for (const [unit, scale] of UNITS) {
    for (const [decimals, power] of [[3, 1000], [2, 100], [1, 10]]) {
      const digits = divRound(ns, scale / power);
      if (digits < 10000) {
        const fraction = String(digits % power).padStart(decimals, "0");
        return `${Math.floor(digits / power)}.${fraction} ${unit}`;
      }
    }
  }
  return `${divRound(ns, 1e9)} s`;
}

/** Formats a duration with its sign: `+44.06 µs`; 0 is `0`. */
const signed = (ns) => (ns === 0 ? "0" : (ns > 0 ? "+" : "") + human(ns));

/** Formats a number in groups of three digits, separated by no-break spaces: `12 345`. */
function count(n) {
  if (n === null || n === undefined) return "-";
  return String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

/** `1 connection`, `2 connections`. */
const plural = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;

/** Converts a JSON name to words: `never_accepted` to `never accepted`. */
const words = (name) => (name === null || name === undefined ? "" : name.replaceAll("_", " "));

/** Converts times of a trace to wall-clock time. `zone` is `utc` or `local`. */
class Clock {
  constructor(beganWallNs) {
    this.began = BigInt(beganWallNs);
    this.zone = "utc";
  }

  /** Converts nanoseconds since the trace began to [date, `14:03:07.123456`]. */
  parts(at) {
    const ns = this.began + BigInt(at);
    let date = new Date(Number(ns / 1000000n));
    if (this.zone === "local") {
      date = new Date(date.getTime() - date.getTimezoneOffset() * 60000);
    }
    const [day, time] = date.toISOString().split("T");
    const micros = String((ns / 1000n) % 1000000n).padStart(6, "0");
    return [day, `${time.slice(0, 8)}.${micros}`];
  }

  time(at) {
    return at === null ? "-" : this.parts(at)[1];
  }

  full(at) {
    const [day, time] = this.parts(at);
    return `${day} ${time} ${this.zone === "utc" ? "UTC" : "local time"}`;
  }
}

/** Formats an address and a port: IPv6 in brackets, an unknown port as `?`. */
function end(addr, port) {
  if (addr === null && port === null) return "?";
  const host = addr === null ? "" : addr.includes(":") ? `[${addr}]` : addr;
  return `${host}:${port ?? "?"}`;
}

