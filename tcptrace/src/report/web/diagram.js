// The sequence diagram of a connection, drawn from the rows of tcptrace/src/report/diagrams.rs.
// tcptrace-core decides what a diagram contains; this code only places it.

const WIDE = 880;
/** Horizontal positions of the lifelines of each end (0 is the client): its process and its kernel. */
const LIFELINES = [{ process: 178, kernel: 292 }, { process: 778, kernel: 566 }];
const QUEUE = 668;

/** The distance of two times in the drawing. It grows with the logarithm of the duration. */
const stretch = (ns) => (ns <= 0 ? 0 : 5 + 13 * Math.log10(1 + ns / 1000));

const PHASE = {
  LISTEN: "opening", SYN_SENT: "opening", SYN_RECV: "opening", NEW_SYN_RECV: "opening",
  ESTABLISHED: "established", TIME_WAIT: "over", CLOSE: "closed",
};

/** Converts the rows to objects. */
function items(diagram) {
  return diagram.items.map(([kind, place, at, ...rest]) => {
    const get = (...names) => Object.fromEntries(names.map((name, i) => [name, rest[i] ?? null]));
    switch (kind) {
      case "state": return { kind, place, at, ...get("until", "state", "begun", "noticed", "cause", "function", "rfc", "synthetic", "error") };
      case "call": return { kind, place, at, ...get("until", "name", "begun", "error", "who", "still", "limit") };
      case "wait": return { kind, place, at, ...get("until", "taken") };
      case "arrow": return { kind, place, at, ...get("sent", "received", "segment", "evidence", "again", "header", "reason") };
      default: return { kind, place, at, ...get("what", "a", "b", "c", "d", "e") };
    }
  });
}

/** Describes an item in words. */
function describe(it) {
  const side = it.place === 0 ? "client" : "server", other = it.place === 0 ? "server" : "client";
  const lasted = it.until === null ? "an unknown time" : human(it.until - it.at);
  switch (it.kind) {
    case "state": {
      const parts = [it.begun ? `${side} enters ${it.state}` : `${side} was already in ${it.state}`];
      if (it.state !== "CLOSE") parts.push(it.until === null ? "its end was not seen" : `for ${lasted}`);
      if (it.cause !== null) parts.push(`because: ${CAUSES[it.cause] ?? words(it.cause)}`);
      if (it.function !== null) parts.push(`by ${it.function}(), RFC 9293 section ${it.rfc}`);
      if (it.noticed) parts.push("found by a check each second, later than it happened");
      if (it.synthetic) parts.push("derived: the state tracepoint did not report it");
      if (it.error !== null) parts.push(`error ${it.error}`);
      return parts.join("; ");
    }
    case "call": {
      const parts = [`${side}'s process${it.who === null ? "" : ` ${it.who}`}: ${it.name}`];
      if (it.name === "connect()" || it.name === "accept()") {
        if (!it.begun) parts.push("returned; the call itself was not seen");
        else if (it.until === null) parts.push("its return was not seen");
        else parts.push(it.name === "connect()" ? `can return after ${lasted}` : `returned after ${lasted}`);
      }
      if (it.still > 0) parts.push(`${it.still} still queued, the limit is ${it.limit}`);
      if (it.error !== null) parts.push(it.error);
      return parts.join("; ");
    }
    case "wait":
      return `in the accept queue for ${lasted}, ${it.taken ? "until accept() returned" : "and never accepted"}`;
    case "arrow": {
      const parts = [`${side} → ${other}: ${it.segment}${it.again ? ", sent again" : ""}`];
      if (it.evidence === "inferred") parts.push("not captured: inferred from a change of state");
      if (it.evidence === "estimated") parts.push("not captured: inferred, at an estimated time");
      if (it.sent !== null && it.received !== null) parts.push(`in flight for ${human(it.received - it.sent)}`);
      else parts.push(it.sent === null ? "its sending was not seen" : "its arrival was not seen");
      if (it.header !== null) parts.push(it.header);
      if (it.reason !== null) parts.push(it.reason);
      return parts.join("; ");
    }
    default:
      return `${side}: ${mark(it)}`;
  }
}

function mark(it) {
  switch (it.what) {
    case "overflow": {
      const segment = String(it.a).toLowerCase() === "syn" ? "the SYN" : "the final ACK";
      const [queue, held] = it.b === "syn" ? ["SYN", "half-open"] : ["accept", "queued"];
      return `${segment} was ${it.e ? "answered with RST" : "dropped"}: the ${queue} queue was full (${it.c} ${held}, limit ${it.d})`;
    }
    case "retransmit": return `${it.a} sent again, ${it.b} so far`;
    case "reset": return `RST ${it.a}${it.b === null ? "" : `: ${it.b}`}`;
    case "freed": return `the socket is freed, ${it.a} continues without it`;
    case "bucket": return `the TIME_WAIT bucket is gone: ${words(it.a)}`;
    default: return `still ${it.a} at the end of the trace`;
  }
}

const CAUSES = {
  listen: "listen()", connect: "connect()", close: "close(), shutdown(), or the end of the process",
  abort: "closed with a RST", syn_received: "a SYN came", syn_ack_received: "the SYN-ACK came",
  ack_received: "the handshake's last ACK came", fin_received: "the peer's FIN came",
  ack_of_fin: "the peer acknowledged the FIN", rst_received: "a RST came", icmp_received: "an ICMP error came",
  data_received: "data arrived for a closed socket", connect_failed: "connect() failed, and nothing was sent",
  disconnect: "disconnected by its process", killed: "killed by another process", repair: "TCP_REPAIR, without a segment",
  timeout: "no answer (timeout)", expired: "its time expired", reused: "a new connection took its ports",
};

/** Computes vertical positions: of times from top to bottom, and of labels without overlaps. */
function place(list, top) {
  const times = new Set();
  for (const it of list) {
    for (const at of [it.at, it.kind === "state" ? null : it.until, it.sent, it.received]) {
      if (at !== null && at !== undefined) times.add(at);
    }
  }
  const lifeline = (it) => (it.kind === "arrow" ? "middle" : it.kind === "wait" ? "queue" : `${it.kind === "call" ? "process" : "kernel"} ${it.place}`);
  /** The lowest label of each lifeline. */
  const busy = {};
  const y = new Map();
  const labels = new Map();
  let last = null, height = top;
  for (const at of [...times].sort((a, b) => a - b)) {
    if (last !== null) height += stretch(at - last);
    const here = list.filter((it) => it.at === at);
    height = Math.max(height, ...here.map((it) => Math.min(busy[lifeline(it)] ?? 0, height + 40)));
    for (const it of here) {
      const label = Math.max(height, busy[lifeline(it)] ?? 0);
      labels.set(it, label);
      busy[lifeline(it)] = label + (it.kind === "arrow" ? 15 : it.kind === "mark" || it.state === "CLOSE" ? 14 : 26);
    }
    y.set(at, height);
    last = at;
  }
  const bottom = Math.max(height, ...Object.values(busy)) + 14;
  return { y, labels, bottom, times: [...times].sort((a, b) => a - b) };
}

/** Draws the diagram. `names` are the processes of the two ends, `stacks` those of acceptors. */
function draw(diagram, names, clock, stacks) {
  const list = items(diagram);
  const top = 74;
  const { y, labels, bottom, times } = place(list, top);
  const at = (time) => y.get(time) ?? bottom - 10;
  const parts = [], over = [];
  const text = (x, y, string, attributes) => s("text", { x, y, ...attributes }, string);
  const item = (it, ...shapes) => {
    const group = s("g", { class: `item ${it.kind}`, tabindex: "0", role: "img", "aria-label": `${signed(it.at)}: ${describe(it)}` }, shapes);
    tip(group, () => `${signed(it.at)}   ${clock.time(diagram.zero + it.at)}\n${describe(it).replaceAll("; ", "\n")}`);
    return group;
  };

  // Lifelines.
  diagram.ends.forEach((it, i) => {
    const lifelines = LIFELINES[i], traced = it.conn !== null;
    const who = i === 0 ? "client" : "server";
    for (const [lifeline, x] of Object.entries(lifelines)) {
      parts.push(s("line", { x1: x, x2: x, y1: 60, y2: bottom, class: traced ? "lifeline" : "lifeline unknown" }));
      parts.push(text(x, 20, `${who} ${lifeline}`, { class: "head", "text-anchor": "middle" }));
    }
    const address = end(it.addr, it.port);
    parts.push(text(lifelines.kernel, 49, `${address} ${traced ? `#${it.conn}` : "not traced"}`, { class: "sub", "text-anchor": "middle" }));
    parts.push(text(lifelines.process, 35, names[i], { class: "sub", "text-anchor": "middle" }));
  });

  // Time axis.
  let free = 0, before = null, shown = "";
  for (const time of times) {
    const height = at(time);
    if (before !== null && time - before >= 1e6 && height - at(before) > 34) {
      const middle = (height + at(before)) / 2;
      parts.push(s("path", { d: `M18 ${middle - 13} v5 l-4 3 l8 4 l-8 4 l4 3 v5`, class: "gap" }));
      parts.push(text(30, middle + 4, human(time - before), { class: "gap-text" }));
    }
    if (height >= free) {
      // If two labels would be equal, the second one shows the time since the item before instead.
      const same = signed(time) === shown;
      if (same) parts.push(text(12, height + 4, `…${signed(time - before)}`, { class: "time" }));
      else parts.push(text(2, height + 4, (shown = signed(time)), { class: "time" }));
      parts.push(s("line", { x1: 80, x2: WIDE - 4, y1: height, y2: height, class: "tick" }));
      free = height + 13;
    }
    before = time;
  }

  // A label is placed on the middle of its arrow, or beside it if another label is there.
  const taken = [];
  const beside = (string, x1, y1, x2, y2) => {
    const half = string.length * 3.4 + 2;
    const places = [0.5, 0.3, 0.7, 0.16, 0.84].map((t) => [x1 + (x2 - x1) * t, y1 + (y2 - y1) * t - 4]);
    const free = ([x, y]) => taken.every((it) => Math.abs(it.x - x) > it.half + half || Math.abs(it.y - y) > 11);
    const [x, y] = places.find(free) ?? places[0];
    taken.push({ x, y, half });
    return [x, y];
  };

  for (const it of list) {
    const label = labels.get(it);
    const lifelines = LIFELINES[it.place], left = it.place === 0;
    const side = (x, gap) => (left ? x - gap : x + gap);
    const anchor = left ? "end" : "start";
    if (it.kind === "state") {
      const x = lifelines.kernel, from = at(it.at);
      const phase = PHASE[it.state] ?? "closing";
      const until = it.until === null ? bottom : at(it.until);
      const shape = phase === "closed"
        ? s("path", { d: `M${x - 7} ${from} h14`, class: "cap" })
        : s("rect", { x: x - 5, y: from, width: 10, height: Math.max(2, until - from), class: `s-${phase}${it.until === null ? " open" : ""}` });
      parts.push(item(it, shape, text(side(x, 10), label + 4, `${it.begun ? "" : "… "}${it.state}`, { class: "name", "text-anchor": anchor }),
        it.until === null || phase === "closed" ? null : text(side(x, 10), label + 15, human(it.until - it.at), { class: "sub", "text-anchor": anchor })));
    } else if (it.kind === "call") {
      const x = lifelines.process, from = at(it.at), until = it.until === null ? from : at(it.until);
      const long = it.name === "accept()" || it.name === "connect()";
      const bar = s("rect", { x: x - 6, y: from - (long ? 0 : 2), width: 12, height: Math.max(4, until - from), class: `call-bar${it.error === null ? "" : " failed"}`, rx: 2 });
      const sub = it.error ?? (!long ? null : !it.begun ? "call not seen" : it.until === null ? "…" : human(it.until - it.at));
      parts.push(item(it, bar, text(side(x, 11), label + 4, it.name, { class: "name", "text-anchor": anchor }),
        sub === null ? null : text(side(x, 11), label + 15, sub, { class: it.error === null ? "sub" : "sub bad", "text-anchor": anchor })));
    } else if (it.kind === "wait") {
      const from = at(it.at), until = at(it.until), middle = Math.max(from + 4, (from + until) / 2 - 4);
      const beside = QUEUE + (diagram.late === null ? 22 : 32);
      parts.push(item(it, s("rect", { x: QUEUE, y: from, width: 16, height: Math.max(3, until - from), class: "queue", fill: "url(#queued)" }),
        text(beside, middle, it.taken ? "queued" : "never taken", { class: "name" }), text(beside, middle + 11, human(it.until - it.at), { class: "sub" })));
      if (diagram.late !== null) parts.push(...lane(diagram.late, stacks, QUEUE + 19, from, Math.max(from + 3, until)));
    } else if (it.kind === "arrow") {
      const start = LIFELINES[it.place].kernel, stop = LIFELINES[1 - it.place].kernel, way = Math.sign(stop - start);
      const known = it.sent === null || it.received === null;
      const y1 = it.sent === null ? at(it.received) - 7 : at(it.sent);
      const y2 = it.received === null ? at(it.sent) + 7 : at(it.received);
      const x1 = start + way * 7, x2 = stop - way * 8;
      const name = `${it.segment}${it.again ? ", again" : ""}`;
      const group = item(it,
        s("line", { x1, y1, x2, y2, class: "hit-line" }),
        s("line", { x1, y1, x2: x2 - way * 6, y2: y2 - ((y2 - y1) * 6) / Math.abs(x2 - x1), class: `shaft ${it.evidence}` }),
        s("path", { d: `M0 0 l-9 -4 v8 z`, transform: `translate(${x2} ${y2}) rotate(${(Math.atan2(y2 - y1, x2 - x1) * 180) / Math.PI})`, class: `point ${it.evidence}${known && it.received === null ? " unsure" : ""}` }),
        text(...beside(name, x1, y1, x2, y2), name, { class: "name halo", "text-anchor": "middle" }));
      if (it.segment === "RST") group.classList.add("bad");
      over.push(group);
    } else {
      const x = lifelines.kernel;
      const short = { overflow: "queue full", retransmit: `${it.a} again`, reset: "RST", freed: "socket freed", bucket: words(it.a), open: `still ${it.a}` }[it.what];
      const alarm = ["overflow", "retransmit", "reset"].includes(it.what);
      // A reset and a retransmission also have an arrow.
      const quiet = it.what === "reset" || it.what === "retransmit";
      over.push(item(it, s("path", { d: `M${x} ${at(it.at) - 5} l5 5 l-5 5 l-5 -5 z`, class: alarm ? "diamond bad" : "diamond" }),
        quiet ? null : text(side(x, 10), label + 4, it.what === "overflow" && it.e ? "queue full: RST" : short, { class: alarm ? "name bad" : "sub", "text-anchor": anchor })));
    }
  }
  const hatch = s("pattern", { id: "queued", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    s("rect", { width: 6, height: 6, class: "hatch-back" }), s("rect", { width: 3, height: 6, class: "hatch" }));
  return s("svg", { viewBox: `0 0 ${WIDE} ${bottom + 6}`, class: "diagram", role: "group", "aria-label": "Sequence diagram; the list below has the same content" }, s("defs", {}, hatch), parts, over);
}

/** The diagram as a table. */
function listed(diagram, clock) {
  const rows = items(diagram).sort((a, b) => a.at - b.at).map((it) => [signed(it.at), clock.time(diagram.zero + it.at), describe(it)]);
  return grid(["Since its start", "Time", "Event"], rows, [0]);
}

