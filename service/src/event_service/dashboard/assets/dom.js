// Text goes into the page as text only: nothing here takes HTML.

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

/** An id that is copied at a click. `shown` is what the button reads, by default the id itself. */
export function copied(id, name, shown = id) {
  const node = el("button", { type: "button", class: "copy", title: `Copy the ${name} ${id}`, "aria-label": `Copy the ${name} ${id}` }, shown);
  node.addEventListener("click", async () => {
    if (!(await copy(id))) return;
    node.classList.add("done");
    setTimeout(() => node.classList.remove("done"), 1200);
  });
  return node;
}

/** Whether it is in the clipboard now. Without TLS there is the old way only. */
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

/** One child of `parent` for each item, made by `create(item)` as { node, update } and kept.
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

/** Puts the parts that `each` keeps into this order. */
export function arrange(parent, keys) {
  let before = null;
  for (const key of keys) {
    const { node } = parent.parts.get(key);
    const next = before ? before.nextSibling : parent.firstChild;
    // A node that is moved loses the focus: leave alone what stands right.
    if (next !== node) parent.insertBefore(node, next);
    before = node;
  }
}

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
