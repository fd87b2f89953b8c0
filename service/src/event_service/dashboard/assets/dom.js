// Only text goes into the page; nothing here accepts HTML.

const SVG = "http://www.w3.org/2000/svg";

/** el("p", { class: "note", title: "…" }, "text", child, …) */
export function el(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

export function icon(name) {
  const use = svg("use", { href: `#icon-${name}` });
  return svg("svg", { class: "icon", "aria-hidden": "true" }, use);
}

/** An id that a click copies. `shown` is the button's text, by default the id itself. */
export function copied(id, name, shown = id) {
  const node = el("button", { type: "button", class: "copy", title: `Copy the ${name} ${id}`, "aria-label": `Copy the ${name} ${id}` }, shown);
  node.addEventListener("click", async () => {
    if (!(await copy(id))) return;
    node.classList.add("done");
    setTimeout(() => node.classList.remove("done"), 1200);
  });
  return node;
}

/** Copies the text and returns whether that worked. Without TLS only the old API is available. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const box = el("textarea", { class: "hidden", readonly: "" });
    box.value = text;
    const focused = document.activeElement;
    document.body.append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    focused?.focus();
    return done;
  }
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** Keeps one child of `parent` for each item, created by `create(item)` as { node, update }.
 * `update` is called with the item and `more`. */
export function each(parent, items, keyOf, create, ...more) {
  const known = (parent.parts ??= new Map());
  const wanted = new Set(items.map(keyOf));
  for (const [key, part] of known) {
    if (wanted.has(key)) continue;
    part.node.remove();
    known.delete(key);
  }
  for (const item of items) {
    const key = keyOf(item);
    let part = known.get(key);
    if (!part) {
      part = create(item);
      known.set(key, part);
      parent.append(part.node);
    }
    part.update(item, ...more);
  }
}

/** Puts the children that `each` keeps into this order. */
export function arrange(parent, keys) {
  let before = null;
  for (const key of keys) {
    const { node } = parent.parts.get(key);
    const next = before ? before.nextSibling : parent.firstChild;
    // A moved node loses the focus, so do not move one that is already in place.
    if (next !== node) parent.insertBefore(node, next);
    before = node;
  }
}

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
