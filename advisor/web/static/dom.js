// The page's elements. Text is only ever set as text.

export const page = document.getElementById("page");
export const texts = JSON.parse(page?.dataset.texts ?? "{}");
export const failed = (error) => texts["page.failed"].replace("{problem}", error.message);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// Calls back when an element first comes near the visible part of the page.
export function onceVisible(target, callback) {
  const observer = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    callback();
  }, { rootMargin: "200px" });
  observer.observe(target);
}

// Puts a picture into a container, with its values in words and its data as a table beside it.
//
// title, keys: what the picture shows, and what its keys do
// read(): the table's data: the names of its columns, the steps, and a cell's text
// onKey(event): called when a key is pressed in the picture
// draw(): called when it first comes near the visible part of the page, and when its colors change
// resize(): called when its size changes
// Returned are whether it has come near, the values' element, and what fills the open table again.
export function framed(container, picture, { title, keys, read, onKey, draw, resize }) {
  const attributes = { tabindex: "0", role: "group", "aria-label": title, "aria-description": keys };
  for (const [name, value] of Object.entries(attributes)) picture.setAttribute(name, value);
  picture.addEventListener("keydown", onKey);
  const frame = { isVisible: false };
  onceVisible(container, () => {
    frame.isVisible = true;
    draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => frame.isVisible && draw());
  new ResizeObserver(resize).observe(container);
  const values = element("p", { class: "values", "aria-live": "polite" });
  const table = element("details", { class: "table" }, element("summary", {}, texts["page.table"]));
  const fill = () => {
    if (!table.open) return;
    const { names, steps, cell } = read();
    const head = [texts.step, ...names].map((name, i) => element("th", { scope: "col", class: i ? "n" : "" }, name));
    const rows = steps.map((step, index) => element("tr", {}, element("th", { scope: "row" }, String(step)),
      ...names.map((_, i) => element("td", { class: "n" }, cell(i, index)))));
    table.querySelector(".scroll")?.remove();
    table.append(element("div", { class: "scroll tall", tabindex: "0", role: "group", "aria-label": title },
      element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows))));
  };
  table.addEventListener("toggle", fill);
  container.replaceChildren(picture, values, table);
  return Object.assign(frame, { values, fill });
}

// The chart of a name in the page, and its title.
export const box = (name) => document.querySelector(`[data-chart="${name}"]`);
export const titleOf = (name) => document.getElementById(`chart-${name}`).textContent;

// A part of a page from the server; the browser parses it as a document that runs no scripts.
export function fetchPart(url) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.responseType = "document";
    request.onload = () => {
      if (request.status === 401 || request.responseURL.includes("/sign-in")) location.reload();
      else if (request.status === 200 && request.response) resolve(request.response);
      else reject(new Error(`${request.status}`));
    };
    request.onerror = () => reject(new Error("offline"));
    request.open("GET", url);
    request.send();
  });
}

// The nodes of an answer of fetchPart, to be put into this page.
export function nodesOf(part, selector = "body") {
  const found = part.querySelector(selector);
  return found ? [...found.childNodes].map((node) => document.importNode(node, true)) : [];
}

// Fetches the parts of a page that are only wanted by those who scroll to them.
export function loadParts() {
  for (const target of document.querySelectorAll("[data-part]")) {
    onceVisible(target, () => fetchPart(target.dataset.part).then(
      (part) => target.replaceChildren(...nodesOf(part)),
      (error) => { target.textContent = failed(error); },
    ));
  }
}

export async function fetchJson(url) {
  const answer = await fetch(url, { headers: { accept: "application/json" } });
  const data = await answer.json();
  if (answer.status === 401) location.reload();
  if (!answer.ok) throw new Error(data.error ?? answer.status);
  return data;
}

// Runs a function now, or at most once in a while if it is called often.
export function throttled(callback, waitMs) {
  let timer = 0;
  let last = -Infinity;
  return () => {
    if (timer) return;
    timer = setTimeout(() => {
      timer = 0;
      last = performance.now();
      callback();
    }, Math.max(0, last + waitMs - performance.now()));
  };
}
