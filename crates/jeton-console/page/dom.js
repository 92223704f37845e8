// Elements, and how they change in place. What comes from outside becomes text and nothing else: no markup is ever parsed.

const SVG = "http://www.w3.org/2000/svg";
const LISTENERS = ["onclick", "onchange", "oninput", "onsubmit", "onkeydown"];

/** An element: `el("td.number", {title: "…"}, "text", otherNode)`. Attributes that are null or false are left out. */
export function el(name, ...rest) {
  return fill(name, (tag) => document.createElement(tag), rest);
}

/** The same, of SVG. */
export function svg(name, ...rest) {
  return fill(name, (tag) => document.createElementNS(SVG, tag), rest);
}

function fill(name, make, rest) {
  const [tag, ...classes] = name.split(".");
  const node = make(tag);
  if (classes.length) node.setAttribute("class", classes.join(" "));
  const plain = rest[0] !== null && typeof rest[0] === "object" && !(rest[0] instanceof Node) && !Array.isArray(rest[0]);
  for (const [key, value] of Object.entries(plain ? rest[0] : {})) {
    if (key === "key" || key === "value" || key.startsWith("on")) node[key] = value;
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...nodes(plain ? rest.slice(1) : rest));
  return node;
}

function nodes(children) {
  const wanted = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  return wanted.map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
}

/**
 * Makes these the children of `parent`, changing what is there rather than replacing it: nothing flickers, no selection and no
 * focus is lost. Nodes with the same `key` are the same thing; a node that is there already stays as it is.
 */
export function show(parent, ...children) {
  const focused = document.activeElement;
  morph(parent, nodes(children));
  // An element that moves loses the focus.
  if (focused !== document.activeElement && focused?.isConnected && parent.contains(focused)) focused.focus({ preventScroll: true });
}

function morph(parent, wanted) {
  const staying = new Set(wanted);
  const keyed = new Map([...parent.childNodes].filter((child) => child.key !== undefined).map((child) => [child.key, child]));
  let at = parent.firstChild;
  for (const next of wanted) {
    let node = next;
    if (next !== at) {
      const same = next.key !== undefined ? keyed.get(next.key) : at;
      if (same && alike(same, next) && !staying.has(same)) {
        keyed.delete(next.key);
        become(same, next);
        node = same;
      }
    }
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && a.key === b.key;

function become(node, next) {
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (node.data !== next.data) node.data = next.data;
    return;
  }
  for (const { name } of [...node.attributes]) {
    // Whether details are open is the reader's.
    if (!next.hasAttribute(name) && name !== "open") node.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  }
  for (const listener of LISTENERS) node[listener] = next[listener];
  morph(node, [...next.childNodes]);
}
