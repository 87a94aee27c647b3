// The overview: the trace's settings, its verdicts, its waits and its listeners.

/** Returns one row for each connection: the server's end if both ends were traced. */
function connectionRows(data) {
  const rows = [];
  for (let row = 0; row < data.rows; row++) {
    if (data.get(row, "side") === "client" && data.peer(row) !== null) continue;
    rows.push(row);
  }
  return rows;
}

function header(trace, clock) {
  const session = trace.session;
  $("file").textContent = trace.file;
  document.title = `${trace.file} – tcptrace report`;
  const parts = [];
  if (session !== null) {
    const filters = Object.entries(session.filters).map(([name, value]) => `${words(name)} ${value}`);
    parts.push(`${clock.full(0)}, ${human(trace.summary?.duration_ns ?? trace.ended_at)} traced`,
      `Linux ${session.kernel}`, `tcptrace ${session.version}`,
      filters.length > 0 ? `TCP, ${filters.join(", ")}` : "all TCP", `depth ${session.depth}`);
  }
  $("session").textContent = parts.join(" · ");
}

/** Shows what is missing from the recording or from this page. */
function notices(trace, data) {
  const paragraphs = [];
  const notice = (text, alarm = true) => paragraphs.push(h("p", { class: alarm ? "notice alarm" : "notice", role: "note" }, text));
  if (trace.damage !== null) {
    notice(`The recording is damaged: ${trace.damage}. This page shows what could be read, ${plural(trace.lines, "line")}.`);
  } else if (trace.summary === null) {
    notice("The recording breaks off before its summary: the tracer was killed, or still runs. This page shows it as far as it goes.");
  }
  const lost = trace.lost.reduce((sum, it) => sum + it.count, 0);
  if (lost > 0) {
    notice(`${plural(lost, "event")} ${lost === 1 ? "was" : "were"} lost, at ${plural(trace.lost.length, "moment")}. Connections that were open then are marked incomplete; all others are complete.`);
  }
  if (trace.without_end > 0) {
    notice(`${plural(trace.without_end, "connection")} ${trace.without_end === 1 ? "has" : "have"} no end in the recording: shown as far as seen, with a verdict only if accept() has returned.`, false);
  }
  if (data.rows === 0 && trace.ports.length === 0) notice("There is no connection in this recording.", false);
  if (trace.ports.length > 0) {
    notice("Recorded with --depth histogram: connections that went well are only counted, by port. The table has the others.", false);
  }
  $("notices").replaceChildren(...paragraphs);
}

function verdictCounts(data, rows, trace) {
  const counts = new Map();
  const add = (key, n) => n > 0 && counts.set(key, (counts.get(key) ?? 0) + n);
  for (const row of rows) add(verdictOf(data, row), 1);
  for (const port of trace.ports) {
    if (port.side === "client") add("client", port.connections);
    else {
      add("queued", port.queued ?? 0);
      add("awaited", port.awaited ?? 0);
      add("unknown", port.connections - (port.queued ?? 0) - (port.awaited ?? 0));
    }
  }
  return Object.keys(VERDICTS).filter((key) => counts.has(key)).map((key) => [key, counts.get(key)]);
}

function tiles(data, rows, trace, search) {
  const counts = verdictCounts(data, rows, trace);
  const total = counts.reduce((sum, [, n]) => sum + n, 0);
  const incomplete = rows.filter((row) => data.get(row, "complete") === false).length;
  const tile = (key, number, label, means, wanted) =>
    h("button", { type: "button", class: `tile v-${key}`, title: means, onclick: () => search(wanted) },
      h("span", { class: "number" }, number), h("span", {}, label));
  const percent = (n) => (total === 0 ? "" : ` · ${Number(((n / total) * 100).toPrecision(3))} %`);
  const all = counts.map(([key, n]) => tile(key, count(n),
    [h("span", { class: "sign", "aria-hidden": "true" }, VERDICTS[key].sign), words(key === "client" ? "called from here" : key), h("small", {}, percent(n))],
    VERDICTS[key].means, key === "client" ? "side:client" : `verdict:${key}`));
  all.unshift(tile("all", count(total), total === 1 ? "connection" : "connections", "all of them", ""));
  if (incomplete > 0) {
    all.push(tile("incomplete", count(incomplete), [h("span", { class: "sign", "aria-hidden": "true" }, "⚠"), "incomplete"],
      "the trace began later, or events were lost while it was open", "is:incomplete"));
  }
  $("tiles").replaceChildren(...all, shares(counts));
}

function timeline(data, rows, trace, clock, search) {
  const until = Math.max(1, trace.ended_at);
  const bins = 120;
  const bin = (at) => Math.min(bins - 1, Math.max(0, Math.floor((at / until) * bins)));
  const series = new Map(Object.keys(VERDICTS).map((key) => [key, new Array(bins).fill(0)]));
  for (const row of rows) series.get(verdictOf(data, row))[bin(data.get(row, "first_at") ?? 0)]++;
  for (const port of trace.ports) {
    for (const [at, n] of port.seconds) series.get(port.side === "client" ? "client" : "unknown")[bin(at)] += n;
  }
  const used = [...series].filter(([, counts]) => counts.some((n) => n > 0)).map(([key, counts]) => ({ key, counts }));
  const width = until / bins;
  const { top, svg } = stacked(used, {
    width: 1200, height: 90, label: "Connections by the time they began, coloured by verdict",
    at: (i) => `${clock.time(Math.round(i * width))}, ${signed(Math.round(i * width))}, for ${human(Math.round(width))}`,
    onpick: (i) => search(`began>=${Math.round(i * width)} began<${Math.round((i + 1) * width)}`),
  });
  for (const lost of trace.lost) {
    const x = (Math.max(0, lost.at) / until) * 1200;
    const mark = s("path", { d: `M${x - 5} 0 h10 l-5 10 z`, class: "lost-mark" });
    svg.append(s("line", { x1: x, x2: x, y1: 0, y2: 90, class: "lost-line" }), tip(mark, `${clock.time(lost.at)}\n${plural(lost.count, "event")} of ${lost.hook} lost: ${words(lost.why)}`));
  }
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((x) => [x, `${signed(Math.round(x * until))}`]);
  $("timeline").replaceChildren(
    h("p", { class: "caption" }, h("b", {}, "When they began"), " ", h("span", { class: "quiet" }, `${human(Math.round(width))} a bar, the highest is ${count(top)}; click a bar to search for its connections`),
      h("span", { class: "legend" }, used.map(({ key }) => badge(key)))),
    svg, axis(ticks));
}

/** Returns the listeners by namespace and port, with their rows and their entries in the summary. */
function listenersOf(data, trace) {
  const listeners = new Map();
  const get = (key, port) => {
    if (!listeners.has(key)) listeners.set(key, { key, port, rows: [], summaries: [], counted: [] });
    return listeners.get(key);
  };
  for (const it of trace.summary?.listeners ?? []) get(`${it.netns} ${it.lport}`, it.lport).summaries.push(it);
  for (let row = 0; row < data.rows; row++) {
    const key = listenerOf(data, row);
    if (key !== null) get(key, data.get(row, "lport")).rows.push(row);
  }
  for (const port of trace.ports.filter((it) => it.side === "server")) get(`${port.netns} ${port.port}`, port.port).counted.push(port);
  const list = [...listeners.values()];
  const several = new Set(list.map((it) => it.key.split(" ")[0])).size > 1;
  for (const it of list) {
    const names = it.summaries.map((x) => end(x.laddr, x.lport));
    const netns = it.key.split(" ")[0];
    it.name = (names.length > 0 ? [...new Set(names)].join(", ") : `:${it.port ?? "?"}`) + (several ? ` (net:[${netns}])` : "");
    it.query = `side:server port:${it.port}${several ? ` netns:${netns}` : ""}`;
  }
  const size = (it) => it.rows.length + it.counted.reduce((sum, x) => sum + x.connections, 0);
  return list.sort((a, b) => size(b) - size(a));
}

/** Returns the known values of a column, sorted. */
const sorted = (data, rows, name) => Float64Array.from(rows.map((row) => data.get(row, name)).filter((it) => it !== null)).sort();

function listenerTable(data, listeners, search) {
  $("listeners").hidden = listeners.length === 0;
  const explained = listeners.some((it) => lateSums(data, it.rows).length > 0);
  const rows = listeners.map((it) => {
    const sum = (name) => {
      const known = it.summaries.map((x) => x[name]).filter((x) => x !== null && x !== undefined);
      return known.length > 0 ? known.reduce((a, b) => a + b, 0) : null;
    };
    const one = it.summaries.length === 1 ? it.summaries[0] : null;
    const waits = sorted(data, it.rows, "accept_queue_ns"), handshakes = sorted(data, it.rows, "handshake_ns");
    const counts = verdictCounts(data, it.rows, { ports: it.counted });
    const wait = (name, q) => human(one?.[`accept_queue_${name}_ns`] ?? quantile(waits, q));
    const limit = one?.backlog_max ?? null;
    const clipped = one?.backlog_clipped ? ` (asked for ${count(one.backlog_asked)}, somaxconn ${count(one.somaxconn)})` : "";
    const bad = (n) => (n > 0 ? h("span", { class: "bad" }, count(n)) : count(n));
    return [
      h("button", { type: "button", class: "link", onclick: () => search(it.query) }, it.name),
      count(sum("connections") ?? it.rows.length), shares(counts),
      human(quantile(handshakes, 0.5)), human(quantile(handshakes, 0.99)),
      wait("p50", 0.5), wait("p99", 0.99), wait("max", 1),
      bad(sum("never_accepted") ?? it.rows.filter((row) => data.get(row, "verdict") === "never_accepted").length),
      bad(sum("overflows")), count(sum("failed_accepts")),
      limit === null ? "-" : h("span", { title: clipped.trim() }, count(limit), clipped === "" ? "" : " clipped"),
      ...(explained ? [lateCell(lateSums(data, it.rows))] : []),
    ];
  });
  $("listener-table").replaceChildren(grid(
    ["Listener", "Connections", "Verdicts", "Handshake p50", "p99", "Queue wait p50", "p99", "max", "Never accepted", "Met a full queue", "Failed accept()", "Queue limit", ...(explained ? ["Why accept() was late"] : [])],
    rows, [1, 3, 4, 5, 6, 7, 8, 9, 10, 11]));
}

/** Draws two charts: the wait for the network (handshake), and the wait for accept(). */
function waits(data, trace, listeners, search) {
  const select = $("at-listener");
  const clients = [];
  for (let row = 0; row < data.rows; row++) if (data.get(row, "side") === "client") clients.push(row);
  const servers = listeners.flatMap((it) => it.rows);
  const counted = trace.ports;
  const choices = [{ name: "all listeners", rows: servers, counted: counted.filter((it) => it.side === "server"), query: "side:server" },
    ...listeners,
    { name: "the clients here", rows: clients, counted: counted.filter((it) => it.side === "client"), query: "side:client" }]
    .filter((it) => it.rows.length > 0 || it.counted.length > 0);
  if (choices.length > 2 && choices[1] && listeners.length === 1) choices.splice(1, 1);
  $("waits").hidden = choices.length === 0;
  select.replaceChildren(...choices.map((it, index) => h("option", { value: index }, it.name)));
  const draw = () => {
    const it = choices[Number(select.value)];
    const buckets = (name) => {
      const all = new Map();
      for (const port of it.counted) for (const [end, n] of Object.entries(port[name])) all.set(Number(end), (all.get(Number(end)) ?? 0) + n);
      return [...all].sort((a, b) => a[0] - b[0]);
    };
    const estimated = it.rows.filter((row) => data.get(row, "syn_source") === "srtt" && data.get(row, "handshake_ns") !== null).length;
    const known = sorted(data, it.rows, "handshake_ns"), queue = sorted(data, it.rows, "accept_queue_ns");
    const server = it.query !== "side:client";
    const charts = [distribution({
      title: "For the network: the handshake", key: "handshake", values: known, buckets: buckets("handshake"),
      note: `${server ? "SYN to ESTABLISHED" : "connect() to ESTABLISHED"}, ${count(known.length)} of ${plural(it.rows.length, "connection")}${estimated > 0 ? `; ≈ ${count(estimated)} from the SYN-ACK, by the first round trip` : ""}`,
      onpick: (from, to) => search(`${it.query} handshake>=${from} handshake<${to}`),
    })];
    if (server) {
      charts.push(distribution({
        title: "For the server: in the accept queue", key: "queued", values: queue, buckets: buckets("accept_queue"),
        note: `ESTABLISHED to accept() returned, ${count(queue.length)} of ${plural(it.rows.length, "connection")}`,
        onpick: (from, to) => search(`${it.query} wait>=${from} wait<${to}`),
      }));
    }
    $("distributions").replaceChildren(...charts);
  };
  select.onchange = draw;
  if (choices.length > 0) draw();
}

/** Shows the counters of each hook, and what this trace could not show. */
function balance(trace) {
  const session = trace.session, summary = trace.summary;
  const hooks = Object.entries(session?.hooks ?? {});
  const rows = hooks.map(([hook, method]) => {
    const it = summary?.hooks?.[hook];
    const bad = (n) => (n > 0 ? h("span", { class: "bad" }, count(n)) : count(n));
    const refused = (session.failed_methods?.[hook] ?? []).map((x) => `${x.method}: ${x.error}`).join(", ");
    return [h("code", {}, hook), method ?? "not attached", refused, count(it?.seen), count(it?.filtered), count(it?.emitted), bad(it?.lost), bad(it?.recursion_misses)];
  });
  const unseen = session?.unseen ?? [];
  const more = [];
  if (summary !== null) {
    if (summary.undecodable > 0) more.push(`${plural(summary.undecodable, "record")} could not be decoded`);
    if (summary.late > 0) more.push(`${plural(summary.late, "event")} came too late to be put in order`);
    if (summary.dropped_lines > 0) more.push(`${plural(summary.dropped_lines, "line")} dropped: their connection stayed unknown for too long`);
    if (summary.incomplete > 0) more.push(`${plural(summary.incomplete, "end")} of connections ${summary.incomplete === 1 ? "is" : "are"} incomplete`);
  }
  $("balance").replaceChildren(
    h("div", { class: "panel scroll", tabindex: "0", role: "region", "aria-label": "Hooks" },
      grid(["Hook", "Attached by", "Refused", "Seen", "Filtered", "Traced", "Lost", "Skipped"], rows, [3, 4, 5, 6, 7])),
    h("div", { class: "panel" }, h("h3", {}, "Not seen"),
      unseen.length > 0 ? h("ul", {}, unseen.map((it) => h("li", {}, it))) : h("p", {}, "Nothing is known to be missing."),
      more.length > 0 ? h("ul", { class: "bad" }, more.map((it) => h("li", {}, it))) : null));
}

