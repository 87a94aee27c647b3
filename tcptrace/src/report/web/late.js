// Why accept() was late: what the acceptor did while the connection was queued, and its stacks.

/** The reasons (`fields::LateReason`): the activity whose colour they have, and words. */
const REASONS = {
  running: ["running", "running on a CPU"],
  cpu: ["runnable", "waiting for a CPU"],
  quota: ["runnable", "out of its CPU quota"],
  blocked: ["blocked", "blocked"],
  lock: ["blocked", "waiting for a lock or another thread"],
  page_fault: ["blocked", "waiting for a page from disk"],
  not_woken: ["blocked", "waiting for work, and not woken"],
  stopped: ["stopped", "stopped by a signal"],
  traced: ["stopped", "stopped by a debugger"],
  frozen: ["stopped", "frozen with its cgroup"],
  unseen: ["unseen", "not known"],
};
/** The activities in the order of the legend. */
const ACTIVITIES = { running: "running", runnable: "waiting for a CPU", blocked: "blocked", stopped: "stopped", unseen: "not known" };

const activity = (reason) => (REASONS[reason] ?? REASONS.unseen)[0];
const reasonWords = (reason) => (REASONS[reason] ?? [null, words(reason)])[1];

/** The parts of a wait in the order of the legend. They add up to the wait. */
function lateParts(late) {
  const parts = [];
  const add = (reason, ns, more = {}) => ns > 0 && parts.push({ reason, ns, times: null, where: null, stack: null, wokenBy: null, ...more });
  const ran = late.acceptor_running_in[0];
  add("running", late.acceptor_running_ns, ran === undefined ? {} : {
    where: `${ran.function ?? "an unknown function"} in ${plural(ran.samples, "sample")}${ran.user_mode ? "" : ", in the kernel"}`, stack: ran.stack,
  });
  add("cpu", late.acceptor_runnable_ns - late.acceptor_throttled_ns);
  add("quota", late.acceptor_throttled_ns);
  let rest = late.acceptor_blocked_ns;
  for (const it of late.acceptor_blocked_in) {
    const where = [it.syscall === null ? null : `${it.syscall}()`, it.function].filter((x) => x !== null).join(", ");
    add(it.late_reason, it.ns, { times: it.times, where, stack: it.stack, wokenBy: it.woken_by });
    rest -= it.ns;
  }
  add("blocked", rest, { where: "other places" });
  add("unseen", late.acceptor_unseen_ns);
  const order = Object.keys(ACTIVITIES);
  return parts.sort((a, b) => order.indexOf(activity(a.reason)) - order.indexOf(activity(b.reason)));
}

/** Converts the stacks of the page. Frames are innermost first. */
function frames(rows) {
  return rows.map(([address, name = null, module = null, file = null, line = null, inlined = false]) => ({ address, name, module, file, line, inlined }));
}

function frameText(it) {
  const name = it.name ?? `0x${it.address}`;
  const place = it.file === null ? it.module : `${it.file}${it.line === null ? "" : `:${it.line}`}`;
  return `${name}${place === null ? "" : `  ${place}`}${it.inlined ? "  (inlined)" : ""}`;
}

/** The stack as lines of text; at most `most` of each part. */
function stackText(stack, most) {
  if (stack === undefined) return "";
  const lines = [];
  for (const [title, part] of [["kernel", stack.kernel], ["user", stack.user]]) {
    if (part.length === 0) continue;
    lines.push(`${title}:`, ...frames(part).slice(0, most).map((it) => `  ${frameText(it)}`));
    if (part.length > most) lines.push(`  … ${part.length - most} more`);
  }
  return lines.join("\n");
}

/** Describes a part of a wait: `blocked 402.0 ms in fsync(), ext4_sync_file (2 times)`. */
function partText(it) {
  const times = it.times === null || it.times === 1 ? "" : ` (${plural(it.times, "time")})`;
  return `${reasonWords(it.reason)} ${human(it.ns)}${it.where ? ` in ${it.where}` : ""}${times}${it.wokenBy === null ? "" : `, woken by ${it.wokenBy}`}`;
}

/** The lane beside the bar of the queue: one segment for each part, as high as its share. */
function lane(late, stacks, x, from, until) {
  const parts = lateParts(late);
  const total = parts.reduce((sum, it) => sum + it.ns, 0);
  let y = from;
  return parts.map((it) => {
    const tall = ((until - from) * it.ns) / Math.max(1, total);
    const bar = s("g", { class: "item lane", tabindex: "0", role: "img", "aria-label": partText(it) },
      s("rect", { x, y, width: 9, height: Math.max(0.5, tall), class: `a-${activity(it.reason)}` }));
    y += tall;
    return tip(bar, () => `${partText(it)}\n${stackText(stacks[it.stack], 12)}`.trim());
  });
}

/** The colours of the lane. */
function laneLegend(late) {
  const used = new Set(lateParts(late).map((it) => activity(it.reason)));
  return h("span", { class: "legend" }, Object.keys(ACTIVITIES).filter((it) => used.has(it)).map((it) =>
    h("span", {}, s("svg", { class: "swatch", viewBox: "0 0 10 10", "aria-hidden": "true" }, s("rect", { width: 10, height: 10, class: `a-${it}` })), ` ${ACTIVITIES[it]}`)));
}

/** The activities of the acceptor and of the other threads, with stacks. */
function lateSection(late, stacks) {
  const parts = lateParts(late);
  const total = parts.reduce((sum, it) => sum + it.ns, 0);
  const rows = parts.map((it) => {
    const stack = stacks[it.stack];
    return [
      [s("svg", { class: "swatch", viewBox: "0 0 10 10", "aria-hidden": "true" }, s("rect", { width: 10, height: 10, class: `a-${activity(it.reason)}` })), ` ${reasonWords(it.reason)}`],
      human(it.ns), `${Number(((it.ns / Math.max(1, total)) * 100).toPrecision(3))} %`, it.times === null ? "" : count(it.times),
      [it.where ?? "", it.wokenBy === null ? "" : `, woken by ${it.wokenBy}`,
        stack === undefined ? null : h("details", { class: "stack" }, h("summary", {}, `stack ${it.stack}`), h("pre", {}, stackText(stack, Infinity)))],
    ];
  });
  const others = late.other_acceptors.map((it) => [`${it.comm}[${it.tid}]`, human(it.running_ns), human(it.runnable_ns), human(it.blocked_ns), human(it.unseen_ns), it.mainly]);
  return h("section", { class: "late" }, h("h3", {}, "What the acceptor did while the connection was queued"),
    h("p", { class: "quiet" }, late.acceptor_tid === null ? "No acceptor of the listener is known." : `Thread ${late.acceptor_tid}. Times are shares of the wait, not their order.`),
    grid(["Activity", "Time", "Share", "Times", "Where"], rows, [1, 2, 3]),
    others.length === 0 ? null : h("h4", {}, "The other acceptors"),
    others.length === 0 ? null : grid(["Thread", "Running", "Waiting for a CPU", "Blocked", "Not known", "Mainly"], others, [1, 2, 3, 4]));
}

/** Sums of late waits by reason, the longest first; `[reason, ns]`. */
function lateSums(data, rows) {
  const sums = new Map();
  for (const row of rows) {
    const reason = data.get(row, "late_reason");
    if (reason === null) continue;
    const wait = ["running", "runnable", "blocked", "unseen"].reduce((sum, it) => sum + (data.get(row, `acceptor_${it}_ns`) ?? 0), 0);
    sums.set(reason, (sums.get(reason) ?? 0) + (data.get(row, "accept_queue_ns") ?? wait));
  }
  return [...sums].sort((a, b) => b[1] - a[1]);
}

/** The main reasons of a listener's late waits, as a bar and a text. */
function lateCell(sums) {
  if (sums.length === 0) return "-";
  let x = 0;
  const total = sums.reduce((sum, [, ns]) => sum + ns, 0);
  const bars = sums.map(([reason, ns]) => {
    const wide = (ns / Math.max(1, total)) * 100;
    const bar = s("rect", { x, y: 0, width: wide, height: 10, class: `a-${activity(reason)}` });
    x += wide;
    return bar;
  });
  const label = ["Late waits by their main reason:", ...sums.map(([reason, ns]) => `${human(ns)} ${reasonWords(reason)}`)].join("\n");
  return tip(h("div", { class: "late-cell", tabindex: "0" },
    s("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", class: "shares", role: "img", "aria-label": label.replaceAll("\n", " ") }, bars),
    h("small", {}, `${human(sums[0][1])} ${reasonWords(sums[0][0])}`)), label);
}

