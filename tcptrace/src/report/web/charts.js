// SVG charts.

/** Stacked bars, one stack for each bin. `series`: [{key, counts}], with one count for each bin. */
function stacked(series, { width, height, label, at, onpick }) {
  const bins = series[0]?.counts.length ?? 0;
  const totals = Array.from({ length: bins }, (_, i) => series.reduce((sum, it) => sum + it.counts[i], 0));
  const top = Math.max(1, ...totals);
  const step = width / Math.max(1, bins);
  const scale = (n) => (n / top) * (height - 4);
  const bars = [];
  for (let i = 0; i < bins; i++) {
    if (totals[i] === 0) continue;
    let y = height;
    const parts = series.filter((it) => it.counts[i] > 0).map((it) => {
      const tall = Math.max(1, scale(it.counts[i]));
      y -= tall;
      return s("rect", { x: i * step, y, width: Math.max(1, step - 1), height: tall, class: `f-${it.key}` });
    });
    const texts = series.filter((it) => it.counts[i] > 0).map((it) => `${count(it.counts[i])} ${words(it.key)}`);
    const group = s("g", { class: "bin" }, parts,
      s("rect", { x: i * step, y: 0, width: step, height, class: "hit", onclick: onpick && (() => onpick(i)) }));
    bars.push(tip(group, () => `${at(i)}\n${texts.join("\n")}`));
  }
  return { top, svg: s("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label, class: "chart" }, bars) };
}

/** Bins of a logarithmic axis: six for each power of ten. */
const PER_DECADE = 6;
const logBin = (ns) => (ns < 100 ? 0 : Math.floor((Math.log10(ns) - 2) * PER_DECADE) + 1);
const logEdge = (bin) => (bin <= 0 ? 0 : Math.round(10 ** (2 + (bin - 1) / PER_DECADE)));

/** A distribution of durations over a logarithmic axis, with its quantiles. `values` are sorted;
 * `buckets` are pairs of a bucket's upper bound and a count, from --depth histogram. */
function distribution({ title, note, key, values, buckets, onpick }) {
  const counts = [];
  const add = (ns, n) => (counts[logBin(ns)] = (counts[logBin(ns)] ?? 0) + n);
  for (const ns of values) add(ns, 1);
  for (const [end, n] of buckets) add(Math.max(0, end - 1), n);
  const known = Object.keys(counts).map(Number);
  const total = values.length + buckets.reduce((sum, [, n]) => sum + n, 0);
  if (total === 0) {
    return h("figure", { class: "panel" }, h("figcaption", {}, h("b", {}, title), " ", h("span", { class: "quiet" }, note)),
      h("p", { class: "quiet" }, "No value was measured."));
  }
  const first = Math.min(...known), last = Math.max(...known);
  // Show at least two powers of ten, for comparison.
  const more = Math.max(0, 2 * PER_DECADE - (last - first));
  const from = Math.max(0, first - 1 - Math.floor(more / 2)), to = last + 2 + Math.ceil(more / 2);
  const width = 600, height = 110, step = width / (to - from);
  const top = Math.max(...known.map((bin) => counts[bin]));
  const bars = known.map((bin) => {
    const tall = Math.max(1.5, (counts[bin] / top) * (height - 6));
    const x = (bin - from) * step;
    const share = ((counts[bin] / total) * 100).toPrecision(3);
    const bar = s("g", { class: "bin" },
      s("rect", { x: x + 0.5, y: height - tall, width: Math.max(1, step - 1), height: tall, class: `f-${key}` }),
      s("rect", { x, y: 0, width: step, height, class: "hit", onclick: onpick && (() => onpick(logEdge(bin), logEdge(bin + 1))) }));
    return tip(bar, `${human(logEdge(bin))} to ${human(logEdge(bin + 1))}\n${plural(counts[bin], "connection")}, ${Number(share)} %`);
  });
  const quantiles = values.length > 0
    ? [["p50", quantile(values, 0.5)], ["p90", quantile(values, 0.9)], ["p99", quantile(values, 0.99)], ["max", values[values.length - 1]]]
    : [["p50", bucketQuantile(buckets, 0.5)], ["p90", bucketQuantile(buckets, 0.9)], ["p99", bucketQuantile(buckets, 0.99)], ["max", bucketQuantile(buckets, 1)]];
  const place = (ns) => (ns < 100 ? 0.5 : (Math.log10(ns) - 2) * PER_DECADE + 1) - from;
  const lines = quantiles.map(([name, ns]) => s("line", { x1: place(ns) * step, x2: place(ns) * step, y1: 0, y2: height, class: `quantile ${name}` }));
  const ticks = [];
  for (let bin = Math.ceil((from - 1) / PER_DECADE) * PER_DECADE + 1; bin <= to; bin += PER_DECADE) {
    if (bin > from) ticks.push([(bin - from) / (to - from), human(logEdge(bin)).replace(/\.0+ /, " ")]);
  }
  return h("figure", { class: "panel" },
    h("figcaption", {}, h("b", {}, title), " ", h("span", { class: "quiet" }, note)),
    h("dl", { class: "quantiles" }, quantiles.map(([name, ns]) => h("div", {}, h("dt", {}, name), h("dd", {}, human(ns))))),
    s("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", class: "chart tall", role: "img", "aria-label": `${title}: ${quantiles.map(([name, ns]) => `${name} ${human(ns)}`).join(", ")}` }, bars, lines),
    axis(ticks));
}

/** Returns the upper bound of the histogram bucket in which a quantile lies. */
function bucketQuantile(buckets, q) {
  const total = buckets.reduce((sum, [, n]) => sum + n, 0);
  let seen = 0;
  for (const [end, n] of buckets) {
    seen += n;
    if (seen >= q * total) return end;
  }
  return null;
}

/** Labels under a chart. `ticks` are pairs of a position from 0 to 1 and a text. */
function axis(ticks) {
  const labels = ticks.map(([x, text]) => {
    const label = h("span", {}, text);
    label.style.left = `${x * 100}%`;
    if (x > 0.92) label.classList.add("last");
    return label;
  });
  return h("div", { class: "axis", "aria-hidden": "true" }, labels);
}

/** A bar of shares. `parts` are pairs of a verdict and a count. */
function shares(parts) {
  const total = parts.reduce((sum, [, n]) => sum + n, 0);
  let x = 0;
  const bars = parts.map(([key, n]) => {
    const wide = (n / Math.max(1, total)) * 100;
    const bar = s("rect", { x, y: 0, width: wide, height: 10, class: `f-${key}` });
    x += wide;
    return bar;
  });
  const label = parts.map(([key, n]) => `${count(n)} ${words(key)}`).join(", ");
  return tip(s("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", class: "shares", role: "img", "aria-label": label }, bars), label);
}

