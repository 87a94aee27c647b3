// The search: parses words and comparisons into a predicate on rows.

const SCALE = { "": 1, ns: 1, us: 1e3, "µs": 1e3, ms: 1e6, s: 1e9, m: 60e9, h: 3600e9, k: 1e3, kb: 1e3, mb: 1e6 };

/** The fields of `field:text` and `field>value`. */
const FIELDS = {
  conn: (d, r) => d.get(r, "conn"),
  side: (d, r) => d.get(r, "side"),
  verdict: (d, r) => `${d.get(r, "verdict") ?? ""} ${words(d.get(r, "verdict"))}`,
  state: (d, r) => d.get(r, "state"),
  ended: (d, r) => `${d.get(r, "ended") ?? ""} ${d.outcome(r)}`,
  error: (d, r) => d.get(r, "error"),
  address: (d, r) => `${d.get(r, "laddr") ?? ""} ${d.get(r, "raddr") ?? ""}`,
  port: (d, r) => [d.get(r, "lport"), d.get(r, "rport")],
  comm: (d, r) => d.get(r, "comm"),
  pid: (d, r) => d.get(r, "pid"),
  uid: (d, r) => d.get(r, "uid"),
  netns: (d, r) => d.get(r, "netns"),
  container: (d, r) => `${d.get(r, "container") ?? ""} ${d.get(r, "container_name") ?? ""}`,
  image: (d, r) => d.get(r, "container_image"),
  pod: (d, r) => d.get(r, "k8s_pod_name"),
  namespace: (d, r) => d.get(r, "k8s_namespace_name"),
  listener: (d, r) => d.get(r, "listener"),
  handshake: (d, r) => d.get(r, "handshake_ns"),
  wait: (d, r) => d.get(r, "accept_queue_ns"),
  open: (d, r) => d.open(r),
  began: (d, r) => d.get(r, "first_at"),
  out: (d, r) => d.get(r, "bytes_acked"),
  in: (d, r) => d.get(r, "bytes_received"),
  rtt: (d, r) => d.get(r, "srtt_ns"),
  retransmits: (d, r) => d.get(r, "retransmits"),
  overflows: (d, r) => d.get(r, "overflows"),
  why: (d, r) => `${d.get(r, "late_reason") ?? ""} ${d.get(r, "late_because") ?? ""}`,
  ahead: (d, r) => d.get(r, "backlog_ahead"),
  is: (d, r) => `${d.get(r, "complete") ? "complete" : "incomplete"} ${d.get(r, "state") === "CLOSE" ? "ended" : "open"}`,
};

/** Parses a search into a predicate `(data, row)`. Throws an Error that says what is wrong. */
function query(text) {
  const tests = [];
  for (const [, minus, quoted, bare] of text.matchAll(/(-?)(?:"([^"]*)"?|(\S+))/g)) {
    const word = quoted ?? bare;
    if (word === "") continue;
    const test = quoted === undefined ? term(word) : contains(word);
    tests.push(minus ? (d, r) => !test(d, r) : test);
  }
  return (d, r) => tests.every((test) => test(d, r));
}

const contains = (word) => {
  const lower = word.toLowerCase();
  return (d, r) => d.haystack(r).includes(lower);
};

function term(word) {
  const parts = /^([a-z]+)(:|>=|<=|>|<|=)(.+)$/i.exec(word);
  if (parts === null || (parts[2] === ":" && !(parts[1] in FIELDS) && parts[1].length < 3)) return contains(word);
  const [, name, operator, value] = parts;
  const field = FIELDS[name.toLowerCase()];
  // An IPv6 address looks like a field: abcd:…
  if (field === undefined && operator === ":" && /^[0-9a-f:.]+$/i.test(word)) return contains(word);
  if (field === undefined) throw new Error(`there is no field “${name}”`);
  if (operator !== ":") return compare(field, name, operator, value);
  const lower = value.replaceAll("\"", "").toLowerCase();
  return (d, r) => {
    const it = field(d, r);
    if (Array.isArray(it)) return it.some((one) => String(one) === lower);
    if (typeof it === "number") return String(it) === lower;
    return it !== null && it.toLowerCase().split(" ").concat(it.toLowerCase()).some((one) => one.startsWith(lower));
  };
}

function compare(field, name, operator, value) {
  const parts = /^([0-9.]+)([a-zµ]*)$/i.exec(value);
  const limit = parts && Number(parts[1]) * SCALE[parts[2].toLowerCase()];
  if (!Number.isFinite(limit) || parts === null) {
    throw new Error(`${name}${operator} needs a number, with a unit if it is a time, such as 10ms`);
  }
  const holds = {
    ">": (it) => it > limit,
    "<": (it) => it < limit,
    ">=": (it) => it >= limit,
    "<=": (it) => it <= limit,
    "=": (it) => it === limit,
  }[operator];
  return (d, r) => [field(d, r)].flat().some((it) => typeof it === "number" && holds(it));
}

