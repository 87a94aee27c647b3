// The entry point: reads the data, builds the page, and keeps it in step with the address
// (#conn=17&q=port:443).

async function start() {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser is too old for this page: it has no DecompressionStream");
  }
  const trace = await block("trace");
  const clock = new Clock(trace.began_wall_ns);
  header(trace, clock);
  balance(trace);
  $("foot").textContent = `Made by tcptrace ${trace.made_by} from ${plural(trace.lines, "line")}. This page is one file and loads nothing.`;
  // Let the browser show the overview before the table is parsed.
  await new Promise((resolve) => setTimeout(resolve));

  const data = new Connections(await block("connections"));
  notices(trace, data);
  const rows = connectionRows(data);
  const listeners = listenersOf(data, trace);

  const address = () => new URLSearchParams(location.hash.slice(1));
  const put = (changes) => {
    const to = address();
    for (const [name, value] of Object.entries(changes)) {
      if (value === null || value === "") to.delete(name);
      else to.set(name, value);
    }
    const hash = to.toString();
    history.replaceState(null, "", hash === "" ? location.pathname + location.search : `#${hash}`);
  };
  const go = (conn) => {
    put({ conn });
    detail.show(conn);
  };

  const table = new Table(data, clock, (row) => go(data.get(row, "conn")));
  const detail = new Detail(data, new Diagrams(trace.diagrams), clock, go, (row, by) => {
    const next = table.order[table.order.indexOf(row) + by];
    return next === undefined ? null : data.get(next, "conn");
  });
  $("detail").addEventListener("close", () => table.focusOn(table.current));

  const search = (text, from = "page") => {
    const wrong = table.search(text);
    $("search-result").textContent = wrong ?? `${count(table.order.length)} of ${plural(data.rows, "end")} of connections`;
    $("search-result").classList.toggle("bad", wrong !== null);
    $("search").setAttribute("aria-invalid", String(wrong !== null));
    put({ q: text });
    if (from === "keys") return;
    $("search").value = text;
    if (from === "page") $("connections").scrollIntoView({ behavior: "smooth" });
  };
  let typing;
  $("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => search($("search").value, "keys"), 120);
  });
  $("clear").addEventListener("click", () => search("", "clear"));
  $("fields").replaceChildren(...Object.keys(FIELDS).flatMap((name) => [h("code", {}, name), " "]));

  const overview = () => {
    header(trace, clock);
    tiles(data, rows, trace, search);
    timeline(data, rows, trace, clock, search);
    listenerTable(data, listeners, search);
    waits(data, trace, listeners, search);
  };
  overview();

  const follow = () => {
    const to = address();
    search(to.get("q") ?? "", "address");
    const conn = /^\d+$/.test(to.get("conn") ?? "") ? Number(to.get("conn")) : null;
    if (conn !== detail.conn) detail.show(conn);
  };
  addEventListener("hashchange", follow);
  follow();

  $("zone").addEventListener("change", (event) => {
    clock.zone = event.target.value;
    overview();
    table.drawn = null;
    table.draw();
    if (detail.conn !== null) detail.show(detail.conn);
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || $("detail").open) return;
    event.preventDefault();
    $("search").focus();
  });
  document.documentElement.dataset.ready = "true";
}

$("theme").addEventListener("change", (event) => (document.documentElement.dataset.theme = event.target.value));

start().catch((error) => {
  $("failure").textContent = `This page cannot be shown: ${error.message}.`;
  $("failure").hidden = false;
  throw error;
});
