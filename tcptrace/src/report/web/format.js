// Numbers and times as the text log writes them (tcptrace/src/duration.rs).

const UNITS = [["µs", 1e3], ["ms", 1e6], ["s", 1e9]];

/** `n / by`, rounded half up. */
function divRound(n, by) {
  return Math.floor(n / by) + (n % by >= Math.ceil(by / 2) ? 1 : 0);
}

/** A duration in nanoseconds, in four digits: `23.41 µs`. */
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

/** `+44.06 µs`, with 0 as `0`. */
const signed = (ns) => (ns === 0 ? "0" : (ns > 0 ? "+" : "") + human(ns));

/** `12 345`: groups of three, by a space that does not break. */
function count(n) {
  if (n === null || n === undefined) return "-";
  return String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

/** `1 connection`, `2 connections`. */
const plural = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;

/** `never accepted` of `never_accepted`. */
const words = (name) => (name === null || name === undefined ? "" : name.replaceAll("_", " "));

/** Wall clock times of a trace; `zone` is `utc` or `local`. */
class Clock {
  constructor(beganWallNs) {
    this.began = BigInt(beganWallNs);
    this.zone = "utc";
  }

  /** [date, `14:03:07.123456`] of a time in nanoseconds since the trace began. */
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

/** An address and a port; IPv6 in brackets, an unknown port as `?`. */
function end(addr, port) {
  if (addr === null && port === null) return "?";
  const host = addr === null ? "" : addr.includes(":") ? `[${addr}]` : addr;
  return `${host}:${port ?? "?"}`;
}

