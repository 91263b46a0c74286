// The overview: its tables are fetched again every few seconds while it is looked at.
import { element, fetchPart, nodesOf } from "./dom.js";

const PERIOD_MS = 5000;
const notice = document.getElementById("notice");

async function refresh() {
  if (document.hidden) return;
  try {
    const part = await fetchPart(location.href);
    say(nodesOf(part, "#notice"));
    document.querySelectorAll("[data-refreshed]").forEach((target) => replace(target, part));
  } catch (error) {
    const detail = element("small", { lang: "en" }, error.message);
    say([element("p", { class: "notice bad" }, `${notice.dataset.problem} `, detail)]);
  }
}

// Says what is wrong; it is announced once while it stays the same.
function say(nodes) {
  const words = nodes.map((node) => node.textContent).join("").trim();
  if (words !== notice.textContent.trim()) notice.replaceChildren(...nodes);
}

function replace(target, part) {
  const found = part.querySelector(`[data-refreshed="${target.dataset.refreshed}"]`);
  // What was read stays where nothing new can be read, as does the keyboard's place.
  if (found.dataset.unread !== undefined || target.contains(document.activeElement)) return;
  target.replaceWith(document.importNode(found, true));
}

setInterval(refresh, PERIOD_MS);
document.addEventListener("visibilitychange", refresh);
