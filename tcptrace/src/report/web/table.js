// The table of connections. Only visible rows have elements, so 100 000 rows cost no more than 50.

const ROW = 26;
/** Upper bound on printed rows. */
const PRINTED = 500;

const COLUMNS = [
  { name: "conn", title: "Conn", width: 72, number: true, text: (d, r) => `#${d.get(r, "conn")}`, sort: (d, r) => d.get(r, "conn") },
  { name: "verdict", title: "Verdict", width: 122, cell: (d, r) => badge(verdictOf(d, r)), sort: (d, r) => Object.keys(VERDICTS).indexOf(verdictOf(d, r)) },
  { name: "tuple", title: "From → to", width: 262, text: (d, r) => d.tuple(r), sort: (d, r) => d.tuple(r) },
  { name: "began", title: "Began", width: 142, time: true, sort: (d, r) => d.get(r, "first_at") },
  { name: "handshake", title: "Handshake", width: 92, number: true, text: (d, r) => (d.get(r, "syn_source") === "srtt" && d.get(r, "handshake_ns") !== null ? "≈ " : "") + human(d.get(r, "handshake_ns")), sort: (d, r) => d.get(r, "handshake_ns") },
  { name: "wait", title: "Queue wait", width: 94, number: true, text: (d, r) => human(d.get(r, "accept_queue_ns")), sort: (d, r) => d.get(r, "accept_queue_ns") },
  { name: "open", title: "Open for", width: 84, number: true, text: (d, r) => human(d.open(r)), sort: (d, r) => d.open(r) },
  { name: "process", title: "Process", width: 160, text: (d, r) => d.who(r), sort: (d, r) => d.who(r) },
  { name: "end", title: "End", width: 176, text: (d, r) => d.outcome(r) + (d.get(r, "error") === null ? "" : `, ${d.get(r, "error")}`), sort: (d, r) => d.outcome(r) },
  { name: "out", title: "B out", width: 66, number: true, text: (d, r) => count(d.get(r, "bytes_acked")), sort: (d, r) => d.get(r, "bytes_acked") },
  { name: "in", title: "B in", width: 66, number: true, text: (d, r) => count(d.get(r, "bytes_received")), sort: (d, r) => d.get(r, "bytes_received") },
];

class Table {
  /** `open(row)` shows a connection. */
  constructor(data, clock, open) {
    Object.assign(this, { data, clock, open, sortBy: "began", down: false, current: 0, said: "" });
    this.order = Array.from({ length: data.rows }, (_, row) => row);
    this.heads = COLUMNS.map((column) =>
      h("th", { scope: "col", class: column.number ? "n" : null },
        h("button", { type: "button", onclick: () => this.sort(column.name) }, column.title, h("span", { class: "arrow", "aria-hidden": "true" }))));
    this.body = h("tbody", {});
    this.before = h("tr", { "aria-hidden": "true", class: "space" }, h("td", { colspan: COLUMNS.length }));
    this.after = this.before.cloneNode(true);
    const cols = COLUMNS.map((column) => {
      const col = h("col");
      col.style.width = `${(100 * column.width) / COLUMNS.reduce((sum, it) => sum + it.width, 0)}%`;
      return col;
    });
    this.table = h("table", { "aria-labelledby": "h-connections", class: "rows" }, h("colgroup", {}, cols), h("thead", {}, h("tr", { "aria-rowindex": 1 }, this.heads)), this.body);
    this.view = h("div", { class: "viewport", onscroll: () => this.draw() }, this.table);
    this.table.addEventListener("keydown", (event) => this.key(event));
    $("table").replaceChildren(this.view);
    new ResizeObserver(() => this.draw()).observe(this.view);
    addEventListener("beforeprint", () => this.print(true));
    addEventListener("afterprint", () => this.print(false));
    this.arrange();
  }

  /** Shows the rows that match the search. Returns an error text, or null. */
  search(text) {
    let test;
    try {
      test = query(text);
    } catch (error) {
      return error.message;
    }
    this.order = [];
    for (let row = 0; row < this.data.rows; row++) if (test(this.data, row)) this.order.push(row);
    this.current = 0;
    this.arrange();
    this.view.scrollTop = 0;
    return null;
  }

  sort(name) {
    this.down = this.sortBy === name ? !this.down : !["conn", "began", "tuple", "process", "end"].includes(name);
    this.sortBy = name;
    this.current = 0;
    this.arrange();
    this.view.scrollTop = 0;
    this.draw();
  }

  arrange() {
    const { sort } = COLUMNS.find((column) => column.name === this.sortBy);
    const keys = new Map(this.order.map((row) => [row, sort(this.data, row)]));
    const sign = this.down ? -1 : 1;
    this.order.sort((a, b) => {
      const x = keys.get(a), y = keys.get(b);
      // Unknown values are last in both directions.
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return (x < y ? -sign : x > y ? sign : 0) || a - b;
    });
    COLUMNS.forEach((column, i) => {
      const is = column.name === this.sortBy;
      this.heads[i].setAttribute("aria-sort", is ? (this.down ? "descending" : "ascending") : "none");
      this.heads[i].querySelector(".arrow").textContent = is ? (this.down ? " ▾" : " ▴") : "";
    });
    this.table.setAttribute("aria-rowcount", this.order.length + 1);
    this.drawn = null;
    this.draw();
  }

  draw() {
    const tall = this.view.clientHeight || 500;
    let first = Math.max(0, Math.floor(this.view.scrollTop / ROW) - 10);
    let last = Math.min(this.order.length, Math.ceil((this.view.scrollTop + tall) / ROW) + 10);
    if (this.printing) [first, last] = [0, Math.min(PRINTED, this.order.length)];
    const drawn = `${first} ${last} ${this.current} ${this.clock.zone}`;
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    const focused = this.body.contains(document.activeElement);
    this.before.firstChild.style.height = `${first * ROW}px`;
    this.after.firstChild.style.height = this.printing ? "0" : `${(this.order.length - last) * ROW}px`;
    const rows = [];
    for (let index = first; index < last; index++) rows.push(this.row(index));
    this.body.replaceChildren(this.before, ...rows, this.after);
    if (focused) this.body.querySelector("[tabindex='0']")?.focus({ preventScroll: true });
  }

  row(index) {
    const { data } = this, row = this.order[index];
    const cells = COLUMNS.map((column) => {
      if (column.cell) return h("td", {}, column.cell(data, row));
      const text = column.time ? this.clock.time(data.get(row, "first_at")) : column.text(data, row);
      return h("td", { class: column.number ? "n" : null, title: text.length > 24 ? text : null }, text);
    });
    if (data.get(row, "complete") === false) {
      cells[0].prepend(h("span", { class: "warn", title: "incomplete: the trace began later, or lost events", role: "img", "aria-label": "incomplete" }, "⚠ "));
    }
    return h("tr", {
      "aria-rowindex": index + 2, tabindex: index === this.current ? "0" : "-1", "data-index": index,
      onclick: () => this.choose(index), onfocus: () => this.focusOn(index, false),
    }, cells);
  }

  choose(index) {
    this.focusOn(index, true);
    this.open(this.order[index]);
  }

  /** Makes a row the current one and scrolls it into view. */
  focusOn(index, focus = true) {
    if (this.order.length === 0) return;
    index = Math.min(this.order.length - 1, Math.max(0, index));
    const same = index === this.current;
    this.current = index;
    const head = this.table.tHead.offsetHeight;
    const top = index * ROW, view = this.view;
    if (top < view.scrollTop) view.scrollTop = top;
    else if (top + ROW + head > view.scrollTop + view.clientHeight) view.scrollTop = top + ROW + head - view.clientHeight;
    if (!same) this.draw();
    if (focus) this.body.querySelector(`[data-index='${index}']`)?.focus({ preventScroll: true });
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.view.clientHeight / ROW) - 2);
    const to = {
      ArrowDown: this.current + 1, ArrowUp: this.current - 1, PageDown: this.current + page,
      PageUp: this.current - page, Home: 0, End: this.order.length - 1,
    }[event.key];
    if (!this.body.contains(event.target)) return;
    if (to !== undefined) this.focusOn(to);
    else if (event.key === "Enter" || event.key === " ") this.choose(this.current);
    else return;
    event.preventDefault();
  }

  print(on) {
    this.printing = on;
    this.drawn = null;
    const left = this.order.length - PRINTED;
    $("print-note").textContent = on && left > 0 ? `The first ${PRINTED} of ${count(this.order.length)} are printed.` : "";
    this.draw();
  }
}

