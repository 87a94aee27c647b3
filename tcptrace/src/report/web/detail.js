// The detail view of a connection: its verdict, its diagram, and the facts about its two ends.

/** Diagrams by connection, and stacks. Blocks are read on demand. */
class Diagrams {
  constructor(index) {
    this.perBlock = index.per_block;
    this.places = new Map(index.conns.flatMap((conns, place) => conns.map((conn) => [conn, place])));
    this.blocks = new Map();
  }

  /** The stacks of acceptors by number. */
  stacks() {
    return (this.allStacks ??= block("stacks"));
  }

  /** The diagram of a connection; null if there is none. */
  async of(conn) {
    const place = this.places.get(conn);
    if (place === undefined) return null;
    const n = Math.floor(place / this.perBlock);
    if (!this.blocks.has(n)) this.blocks.set(n, block(`diagrams-${n}`));
    return (await this.blocks.get(n))[place % this.perBlock];
  }
}

/** Groups of facts: a heading, and pairs of a name and a function that formats the value. */
const FACTS = [
  ["Handshake", [
    ["SYN", (d, r, c) => d.get(r, "syn_at") !== null && `${d.get(r, "syn_source") === "srtt" ? "≈ " : ""}${c.time(d.get(r, "syn_at"))}`],
    ["took", (d, r) => d.get(r, "handshake_ns") !== null && `${d.get(r, "syn_source") === "srtt" ? "≈ " : ""}${human(d.get(r, "handshake_ns"))}${d.get(r, "syn_source") === "srtt" ? ", from the SYN-ACK by the first round trip" : ""}`],
    ["half-open for", (d, r) => d.get(r, "half_open_ns") !== null && human(d.get(r, "half_open_ns"))],
    ["ESTABLISHED", (d, r, c) => d.get(r, "established_at") !== null && c.time(d.get(r, "established_at"))],
    ["SYN sent again", (d, r) => d.get(r, "syn_retransmits") > 0 && `${d.get(r, "syn_retransmits")}×`],
    ["SYN-ACK sent again", (d, r) => d.get(r, "synack_retransmits") > 0 && `${d.get(r, "synack_retransmits")}×`],
    ["SYN cookie", (d, r) => d.get(r, "syncookie") && "yes"],
    ["TCP_DEFER_ACCEPT", (d, r) => d.get(r, "defer_accept") && "yes"],
    ["met a full queue", (d, r) => d.get(r, "overflows") > 0 && `${d.get(r, "overflows")}×`],
  ]],
  ["accept()", [
    ["called", (d, r, c) => d.get(r, "accept_called_at") !== null && c.time(d.get(r, "accept_called_at"))],
    ["returned", (d, r, c) => d.get(r, "accepted_at") !== null && c.time(d.get(r, "accepted_at"))],
    ["waited in the queue", (d, r) => d.get(r, "accept_queue_ns") !== null && human(d.get(r, "accept_queue_ns"))],
    ["ahead in the queue", (d, r) => d.get(r, "backlog_ahead") !== null && `${count(d.get(r, "backlog_ahead"))}${d.get(r, "backlog_max") === null ? "" : `, the limit is ${count(d.get(r, "backlog_max"))}`}`],
  ]],
  ["End", [
    ["state", (d, r) => `${d.get(r, "state") ?? "?"}${d.get(r, "bucket") === null ? "" : `, ${d.get(r, "bucket")} without a socket`}`],
    ["how", (d, r) => d.outcome(r)],
    ["first to close", (d, r) => ({ local: "this end", remote: "the peer", both: "both at once" })[d.get(r, "closed_first")]],
    ["error", (d, r) => d.get(r, "error")],
    ["open for", (d, r) => d.open(r) !== null && human(d.open(r))],
  ]],
  ["Figures", [
    ["sent, acknowledged", (d, r) => d.get(r, "bytes_acked") !== null && `${count(d.get(r, "bytes_acked"))} B in ${plural(d.get(r, "segs_out"), "segment")}`],
    ["received", (d, r) => d.get(r, "bytes_received") !== null && `${count(d.get(r, "bytes_received"))} B in ${plural(d.get(r, "segs_in"), "segment")}`],
    ["not read", (d, r) => d.get(r, "unread_bytes") > 0 && `${count(d.get(r, "unread_bytes"))} B`],
    ["sent again", (d, r) => d.get(r, "retransmits") > 0 && plural(d.get(r, "retransmits"), "segment")],
    ["round trip", (d, r) => d.get(r, "srtt_ns") !== null && human(d.get(r, "srtt_ns"))],
    ["congestion window", (d, r) => d.get(r, "snd_cwnd") !== null && plural(d.get(r, "snd_cwnd"), "segment")],
  ]],
  ["Socket", [
    ["addresses", (d, r) => `${end(d.get(r, "laddr"), d.get(r, "lport"))}, peer ${end(d.get(r, "raddr"), d.get(r, "rport"))}`],
    ["process", (d, r) => d.get(r, "pid") !== null && `${d.who(r)}, thread ${d.get(r, "tid") ?? "?"} (${PID_SOURCES[d.get(r, "pid_source")] ?? "?"})`],
    ["user", (d, r) => d.get(r, "uid")],
    ["network namespace", (d, r) => `net:[${d.get(r, "netns")}]`],
    ["cookie", (d, r) => d.get(r, "cookie") && `sk:${d.get(r, "cookie")}`],
    ["cgroup", (d, r) => d.get(r, "cgroup")],
    ["container", (d, r) => d.get(r, "container")],
    ["container name", (d, r) => d.get(r, "container_name")],
    ["image", (d, r) => d.get(r, "container_image")],
    ["pod", (d, r) => d.get(r, "k8s_pod_name")],
    ["pod namespace", (d, r) => d.get(r, "k8s_namespace_name")],
    ["listener", (d, r) => d.get(r, "listener") !== null && `#${d.get(r, "listener")}`],
  ]],
];

const PID_SOURCES = {
  connect: "called connect()", listen: "called listen()", accept: "called accept()", close: "closed it",
  snapshot: "owned it when the trace began", presumed: "listens, and will probably accept",
};

class Detail {
  /** `go(conn)` shows another connection, or none. `step(row, by)` returns the previous or next conn. */
  constructor(data, diagrams, clock, go, step) {
    Object.assign(this, { data, diagrams, clock, go, step, conn: null });
    this.dialog = $("detail");
    this.dialog.addEventListener("close", () => this.conn !== null && this.go(null));
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by !== undefined && !event.ctrlKey && !event.altKey && !event.metaKey) this.move(by);
    });
  }

  move(by) {
    const conn = this.step(this.data.byConn.get(this.conn), by);
    if (conn !== null) this.go(conn);
  }

  async show(conn) {
    this.conn = conn;
    $("tip").hidden = true;
    document.body.append($("tip"));
    if (conn === null) {
      this.dialog.close();
      return;
    }
    const row = this.data.byConn.get(conn);
    const diagram = row === undefined ? null : await this.diagrams.of(conn);
    const stacks = (diagram?.late ?? null) === null ? {} : await this.diagrams.stacks();
    // Another connection has been requested meanwhile.
    if (this.conn !== conn) return;
    this.dialog.replaceChildren(...(row === undefined ? this.unknown(conn) : this.content(row, diagram, stacks)));
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
    this.dialog.querySelector(".close").focus({ preventScroll: true });
  }

  bar(title) {
    const button = (text, label, act, more = "") => h("button", { type: "button", "aria-label": label, title: label, class: more, onclick: act }, text);
    return h("div", { class: "bar" }, h("h2", { id: "detail-title" }, title),
      button("←", "previous connection (left arrow)", () => this.move(-1)),
      button("→", "next connection (right arrow)", () => this.move(1)),
      button("Print", "print this connection", () => print()),
      button("✕", "close (Esc)", () => this.dialog.close(), "close"));
  }

  unknown(conn) {
    return [this.bar(`#${conn}`), h("p", { class: "notice" }, `There is no connection #${conn} in this recording.`)];
  }

  content(row, diagram, stacks) {
    const { data, clock } = this, peer = data.peer(row);
    const server = data.get(row, "side") !== "server" && peer !== null ? peer : row;
    const paragraphs = [h("p", { class: "verdict-text" }, badge(verdictOf(data, server)), data.get(server, "reason") === null ? null : `: ${data.get(server, "reason")}`)];
    for (const it of [row, peer]) {
      if (it !== null && data.get(it, "explanation") !== null) paragraphs.push(h("p", {}, data.get(it, "explanation")));
    }
    if (data.get(server, "late_because") !== null) paragraphs.push(h("p", { class: "late-because" }, data.get(server, "late_because")));
    if (data.get(server, "evidence") !== null) paragraphs.push(h("p", { class: "quiet" }, `Evidence: ${data.get(server, "evidence")}`));
    for (const it of [row, peer]) {
      if (it === null || data.get(it, "complete") !== false) continue;
      paragraphs.push(h("p", { class: "notice" }, data.get(it, "has_end_line")
        ? `⚠ #${data.get(it, "conn")} is incomplete: the trace began later, or lost events while it was open.`
        : `⚠ The recording does not have the end of #${data.get(it, "conn")}: it is shown as far as it was seen.`));
    }
    const ends = [row, peer].filter((it) => it !== null).sort((a, b) => (data.get(a, "side") === "server") - (data.get(b, "side") === "server"));
    return [this.bar(`#${data.get(row, "conn")}  ${data.tuple(row)}`), ...paragraphs,
      ...(diagram === null ? [h("p", { class: "quiet" }, "There is no diagram: the recording has no changes of state of this connection.")] : this.diagram(diagram, stacks)),
      h("div", { class: "ends" }, ends.map((it) => this.facts(it)))];
  }

  diagram(diagram, stacks) {
    const names = diagram.ends.map((it) => {
      const row = this.data.byConn.get(it.conn);
      return row === undefined ? (it.conn === null ? "not traced" : "") : this.data.who(row);
    });
    const legend = [diagram.segments ? "Segments were recorded: solid arrows were seen." : "Segments were not recorded: dashed arrows are inferred from changes of state, dotted ones at an estimated time."];
    legend.push("Height grows with the logarithm of time.");
    if (diagram.ends.some((it) => it.conn === null)) legend.push("One end was not traced (it is on another host, or filtered out), so nothing is known about it.");
    if (diagram.left_out > 0) legend.push(`${plural(diagram.left_out, "event")} left out: there were too many.`);
    const { clock } = this, { late } = diagram;
    if (late !== null) legend.push("The lane beside the queue's bar shows what the acceptor did meanwhile: shares of the wait, not their order.");
    return [h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Sequence diagram" }, draw(diagram, names, clock, stacks)),
      h("p", { class: "quiet" }, `0 is ${clock.full(diagram.zero)}. ${legend.join(" ")}`, late === null ? null : laneLegend(late)),
      late === null ? null : lateSection(late, stacks),
      h("details", {}, h("summary", {}, "The same as a list"), listed(diagram, clock))].filter((it) => it !== null);
  }

  facts(row) {
    const { data, clock } = this;
    const groups = FACTS.map(([title, facts]) => {
      const known = facts.map(([name, of]) => [name, of(data, row, clock)]).filter(([, it]) => it !== null && it !== false && it !== undefined);
      return known.length === 0 ? null : [h("h4", {}, title), h("dl", {}, known.map(([name, it]) => [h("dt", {}, name), h("dd", {}, it)]).flat())];
    });
    const conn = data.get(row, "conn");
    return h("section", {}, h("h3", {}, `#${conn}, the ${data.get(row, "side") ?? "end of unknown side"}`), groups.flat());
  }
}

