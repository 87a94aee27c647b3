// Functions that create elements. Texts become text nodes; no code of this page parses markup.

const $ = (id) => document.getElementById(id);

/** Creates an element: `h("p", {class: "quiet", onclick: f}, "text", element)`. Null attributes are left out,
 * functions are listeners. */
function h(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** Creates an SVG element, like `h`. */
function s(name, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Creates a table. The columns in `numbers` are aligned as numbers. */
function grid(headings, rows, numbers = []) {
  const cell = (name) => (it, column) =>
    h(name, { class: numbers.includes(column) ? "n" : null, scope: name === "th" ? "col" : null }, it);
  return h("table", {},
    h("thead", {}, h("tr", {}, headings.map(cell("th")))),
    h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map(cell("td"))))));
}

/** Creates a verdict's sign and name. */
function badge(verdict) {
  const it = VERDICTS[verdict] ?? VERDICTS.unknown;
  return h("span", { class: `verdict v-${verdict}`, title: it.means },
    h("span", { class: "sign", "aria-hidden": "true" }, it.sign), words(verdict));
}

/** Shows the tip `text` beside `element` while the pointer or the focus is on it. */
function tip(element, text) {
  const show = (event) => {
    const box = $("tip");
    // A modal dialog covers all elements outside it.
    (element.closest("dialog") ?? document.body).append(box);
    box.textContent = typeof text === "function" ? text() : text;
    box.hidden = false;
    const at = element.getBoundingClientRect();
    const x = event.type === "focus" ? at.left + at.width / 2 : event.clientX;
    const y = event.type === "focus" ? at.bottom : event.clientY;
    const size = box.getBoundingClientRect();
    const left = Math.min(x + 12, innerWidth - size.width - 8);
    const below = y + 14 + size.height < innerHeight;
    box.style.left = `${Math.max(8, left)}px`;
    box.style.top = `${below ? y + 14 : Math.max(8, y - size.height - 10)}px`;
  };
  const hide = () => ($("tip").hidden = true);
  for (const event of ["pointerenter", "pointermove", "focus"]) element.addEventListener(event, show);
  for (const event of ["pointerleave", "blur"]) element.addEventListener(event, hide);
  return element;
}

