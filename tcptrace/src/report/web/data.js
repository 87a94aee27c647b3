// The data blocks of this page, and the table of connections in them.

/** Reads a block: base64, deflated, JSON. */
async function block(id) {
  const element = document.getElementById(`data-${id}`);
  const text = atob(element.textContent);
  const bytes = Uint8Array.from(text, (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const data = await new Response(stream).json();
  element.remove();
  return data;
}

/** Connections by row. Fields have the names of tcptrace's JSON; `…_at` is in nanoseconds since
 * the trace began. Unknown values are null. */
class Connections {
  constructor(table) {
    this.rows = table.rows;
    this.columns = {};
    for (const [name, column] of Object.entries(table.columns)) {
      let cells = column.cells ?? new Array(table.rows).fill(column.all);
      if (column.kind === "text") {
        cells = cells.map((cell) => (cell === null ? null : table.texts[cell]));
      } else if (column.kind === "bool") {
        cells = cells.map((cell) => (cell === null ? null : cell === 1));
      }
      this.columns[name] = cells;
    }
    this.byConn = new Map();
    for (let row = 0; row < this.rows; row++) this.byConn.set(this.get(row, "conn"), row);
    this.haystacks = [];
  }

  get(row, name) {
    return this.columns[name]?.[row] ?? null;
  }

  /** `10.0.0.9:39709 → :7878`, from the client to the server, as in the text log. */
  tuple(row) {
    const own = end(this.get(row, "laddr"), this.get(row, "lport"));
    const peer = end(this.get(row, "raddr"), this.get(row, "rport"));
    if (this.get(row, "side") === "server") {
      return `${peer} → ${end(null, this.get(row, "lport"))}`;
    }
    return `${own} → ${peer}`;
  }

  /** The process: `server[4711]`, `server[4711]?` if it is presumed, `-` if unknown. */
  who(row) {
    const pid = this.get(row, "pid");
    if (pid === null) return "-";
    const presumed = this.get(row, "pid_source") === "presumed" ? "?" : "";
    return `${this.get(row, "comm") ?? ""}[${pid}]${presumed}`;
  }

  /** Time since ESTABLISHED, until the end or the last line, in nanoseconds. */
  open(row) {
    const established = this.get(row, "established_at");
    return established === null ? null : Math.max(0, this.get(row, "at") - established);
  }

  /** How the connection ended, in words. */
  outcome(row) {
    const ended = this.get(row, "ended");
    if (ended !== null) return ENDED[ended] ?? words(ended);
    if (!this.get(row, "has_end_line")) return `end not seen (${this.get(row, "state") ?? "?"})`;
    const state = this.get(row, "state");
    if (state !== "CLOSE") return `still ${state}`;
    const half = this.get(row, "half_open_end");
    return half === null ? "ended in an unknown way" : `half-open: ${words(half)}`;
  }

  /** The text of a row, in which the search looks for a word without a field name. */
  haystack(row) {
    return (this.haystacks[row] ??= [
      `#${this.get(row, "conn")}`, this.get(row, "side"), this.tuple(row), this.get(row, "laddr"),
      this.who(row), words(this.get(row, "verdict")), this.get(row, "verdict"),
      this.get(row, "state"), this.outcome(row), this.get(row, "error"),
      this.get(row, "complete") === false ? "incomplete" : "",
    ].filter((part) => part !== null).join(" ").toLowerCase());
  }

  /** The row of the other end; null if it is not in the table. */
  peer(row) {
    return this.byConn.get(this.get(row, "peer_conn")) ?? null;
  }
}

/** The words of `fields::Ended::words`. */
const ENDED = {
  orderly: "closed in good order",
  reset_sent: "reset by this host",
  reset_received: "reset by the peer",
  aborted: "aborted by its process",
  disconnected: "disconnected by its process",
  killed: "killed by another process",
  repair: "closed in TCP_REPAIR mode",
  timeout: "timed out",
  refused: "refused",
  unreachable: "unreachable",
  closed_in_queue: "closed in the accept queue",
  reset_in_queue: "reset in the accept queue",
  given_up: "given up by its process",
  no_free_port: "no free port",
};

/** Verdicts in the log's colours, with a sign for readers without colours; the worst last. `client`
 * stands for a connection whose server's end was not traced. */
const VERDICTS = {
  awaited: { sign: "●", means: "accept() was waiting; ESTABLISHED, then accept() returned" },
  queued: { sign: "◷", means: "ESTABLISHED before accept() was called: it waited in the queue" },
  fast_open: { sign: "◆", means: "accept() returned before the final ACK, as Fast Open allows" },
  overlapped: { sign: "◈", means: "accept() took it on another CPU at the moment of ESTABLISHED" },
  client: { sign: "→", means: "called from here; its server's end was not traced" },
  unknown: { sign: "?", means: "evidence is missing" },
  unfinished: { sign: "◌", means: "the handshake was never finished" },
  never_accepted: { sign: "✕", means: "ESTABLISHED and never accepted" },
  violated: { sign: "‼", means: "accept() before the final ACK without Fast Open" },
};

/** The key into VERDICTS; a server's end without a verdict is unknown. */
function verdictOf(data, row) {
  const verdict = data.get(row, "verdict");
  if (verdict !== null) return verdict;
  return data.get(row, "side") === "client" ? "client" : "unknown";
}

/** The key of a server connection's listener: namespace and local port. Null for other rows. */
function listenerOf(data, row) {
  if (data.get(row, "side") !== "server") return null;
  return `${data.get(row, "netns")} ${data.get(row, "lport")}`;
}

/** The quantile `q` of sorted values (nearest rank); null if there are none. */
function quantile(sorted, q) {
  if (sorted.length === 0) return null;
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(q * sorted.length) - 1))];
}

