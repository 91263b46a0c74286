// The overview: its tables are fetched again every few seconds while it is looked at.
import { fetchPart, nodesOf } from "./dom.js";

const PERIOD_MS = 5000;

async function refresh() {
  const target = document.getElementById("refreshed");
  if (document.hidden || target.contains(document.activeElement)) return;
  try {
    const part = await fetchPart(location.href);
    target.replaceChildren(...nodesOf(part, "#refreshed"));
  } catch {
    // The next period tries again.
  }
}

setInterval(refresh, PERIOD_MS);
