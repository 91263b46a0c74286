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

// An answer of the server: "json" or a "document"; the browser parses both, and runs no scripts.
export function ask(url, type) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.responseType = type;
    request.onload = () => {
      if (request.status === 401 || request.responseURL.includes("/sign-in")) location.reload();
      else if (request.status === 200 && request.response) resolve(request.response);
      else reject(new Error(request.response?.error ?? request.status));
    };
    request.onerror = () => reject(new Error("offline"));
    request.open("GET", url);
    request.send();
  });
}

// Fills an element with a part of a page from the server.
export async function fill(target, url) {
  try {
    replaceContent(target, (await ask(url, "document")).body);
  } catch (error) {
    target.textContent = failed(error);
  }
}

// Fetches the parts of a page that are only wanted by those who scroll to them.
export function loadParts() {
  for (const target of document.querySelectorAll("[data-part]")) {
    onceVisible(target, () => fill(target, target.dataset.part));
  }
}

const shown = {}; // what the server said last, by the name of the part

// Fetches parts of this page again, and returns those that have changed.
export async function refresh(url) {
  const answer = await ask(url, "document");
  return [...document.querySelectorAll("[data-refreshed]")].filter((target) => {
    const name = target.dataset.refreshed;
    const found = answer.querySelector(`[data-refreshed="${name}"]`);
    // What was read stays where nothing new can be read.
    if (!found || found.dataset.unread !== undefined) return false;
    if (isInUse(target) || shown[name] === found.innerHTML) return false;
    shown[name] = found.innerHTML;
    replaceContent(target, found);
    return true;
  });
}

// Whether a part has the keyboard's place, or text that is being selected. A click leaves the focus
// on a link, too, but nobody is there.
function isInUse(target) {
  const selection = getSelection();
  const isSelected = selection.type === "Range" && selection.containsNode(target, true);
  return isSelected || target.querySelector(":focus-visible") !== null;
}

// Shows what another document has, scrolled as what was there before.
function replaceContent(target, found) {
  const scrolled = () => [...target.querySelectorAll(".scroll, .changes")];
  const places = scrolled().map((each) => [each.scrollLeft, each.scrollTop]);
  target.replaceChildren(...document.importNode(found, true).childNodes);
  scrolled().forEach((each, i) => each.scrollTo(...places[i] ?? [0, 0]));
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
