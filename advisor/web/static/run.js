// The page of a run.
/* global uPlot */
import { Chart, drawCharts } from "./chart.js";
import {
  failed, fetchJson, fetchPart, loadParts, nodesOf, page, texts, throttled,
} from "./dom.js";
import { HeatMap } from "./heatmap.js";
import { LiveRun } from "./live.js";

const MAX_POINTS = 4000; // then the server reduces the curves again
const METRICS_MS = 20000; // they come without an event of the run
const base = page.dataset.base;
const liveStatus = document.getElementById("live");
const charts = {};
let data = null;

for (const container of document.querySelectorAll("[data-chart]")) {
  const name = container.dataset.chart;
  charts[name] = name === "blocks"
    ? new HeatMap(container, (block) => listGroups({ block }))
    : new Chart(container);
}

function draw() {
  const started = performance.now();
  for (const [name, curves] of Object.entries(data.charts)) charts[name].setData(curves);
  performance.measure("draw-charts", { start: started });
  page.dataset.measurements = data.measurements;
}

function addMeasurement(added, id) {
  data.last_id = id;
  data.measurements += 1;
  for (const [name, { steps, values }] of Object.entries(data.charts)) {
    steps.push(added.step);
    values.forEach((series, i) => series.push(added.charts[name][i]));
  }
  drawSoon();
  refreshFigures();
  if (data.charts.total.steps.length > MAX_POINTS) load();
}

const drawSoon = throttled(() => {
  if (!document.hidden) draw();
}, 300);
document.addEventListener("visibilitychange", () => {
  if (data) drawSoon();
  refreshFigures();
});

const refreshFigures = throttled(async () => {
  if (document.hidden) return;
  try {
    const part = await fetchPart(`${base}/figures`);
    for (const name of ["figures", "details"]) {
      const target = document.getElementById(name);
      // The keyboard's place is not taken away under a reader's hands.
      if (!target.contains(document.activeElement)) {
        target.replaceChildren(...nodesOf(part, `#${name}`));
      }
    }
  } catch {
    // The next measurement tries again.
  }
}, 3000);

// The run's own metrics; none of the page depends on them.
const refreshMetrics = throttled(async () => {
  const target = document.getElementById("metrics");
  if (document.hidden || target.contains(document.activeElement)) return;
  try {
    target.replaceChildren(...nodesOf(await fetchPart(`${base}/metrics`)));
    drawCharts(target);
  } catch {
    // The next period tries again.
  }
}, METRICS_MS);

setInterval(() => {
  refreshFigures();
  refreshMetrics();
}, METRICS_MS);

const live = new LiveRun(base, {
  measurement: addMeasurement,
  reload() {
    load();
    refreshFigures();
  },
  state(state, problem) {
    // The figures say what is wrong; those of a page that was just opened are new.
    if (state === "lost" || liveStatus.classList.contains("lost")) refreshFigures();
    liveStatus.className = `live ${state}`;
    const reading = data && !data.complete ? texts["page.reading"] : texts["page.live"];
    liveStatus.textContent = state === "live" ? reading : texts["page.lost"];
    liveStatus.title = problem;
  },
});

async function load() {
  try {
    data = await fetchJson(`${base}/curves.json?pixels=${page.clientWidth}`);
  } catch (error) {
    liveStatus.className = "live lost";
    liveStatus.textContent = failed(error);
    setTimeout(load, 5000);
    return;
  }
  draw();
  live.follow({ lastId: data.last_id, shape: data.shape, complete: data.complete });
  refreshMetrics(); // below the first charts
}

// Lists the groups of a role or a block; without either, the list is closed.
async function listGroups(chosen) {
  const target = document.getElementById("groups");
  for (const name of ["shares", "multipliers", "effective"]) charts[name].show(chosen.role ?? null);
  if (!chosen.role && !chosen.block) {
    target.replaceChildren();
    return;
  }
  try {
    const part = await fetchPart(`${base}/groups?${new URLSearchParams(chosen)}`);
    target.replaceChildren(...nodesOf(part));
    target.scrollIntoView({ block: "nearest" });
  } catch (error) {
    target.textContent = failed(error);
  }
}

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-close]")) listGroups({});
  const link = event.target.closest("a[data-role]");
  if (!link || !data) return;
  event.preventDefault();
  listGroups({ role: link.dataset.role });
});

load();
loadParts();
