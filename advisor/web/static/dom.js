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
