// The overview: its tables are fetched again every few seconds while it is looked at.
import { refresh } from "./dom.js";

const PERIOD_MS = 5000;
const problem = document.getElementById("problem");

async function update() {
  if (document.hidden) return;
  try {
    await refresh(location.href);
    problem.hidden = true;
  } catch (error) {
    problem.hidden = false;
    problem.querySelector("small").textContent = error.message;
  }
}

setInterval(update, PERIOD_MS);
document.addEventListener("visibilitychange", update);
