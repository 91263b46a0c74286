// The page of a run.
import { Chart, drawCharts } from "./chart.js";
import { ask, failed, fill, loadParts, page, refresh, texts, throttled } from "./dom.js";
import { HeatMap } from "./heatmap.js";
import { LiveRun } from "./live.js";

const MAX_POINTS = 4000; // then the server reduces the curves again
const METRICS_MS = 20000; // they come without an event of the run
const CHECK_MS = 60000; // its viewers share a sheet for a while
const FIGURES_MS = 5000;
const DRAW_MS = 300;
const RETRY_MS = 5000;
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
  const start = performance.now();
  for (const [name, curves] of Object.entries(data.charts)) charts[name].frame.setData(curves);
  performance.measure("draw-charts", { start });
  page.dataset.measurements = data.measurements;
}

function addMeasurement(added) {
  data.measurements += 1;
  for (const [name, { steps, values }] of Object.entries(data.charts)) {
    steps.push(added.step);
    values.forEach((series, i) => series.push(added.charts[name][i]));
  }
  drawSoon();
  refreshFigures();
  if (data.charts.total.steps.length > MAX_POINTS) load();
}

// Nothing is drawn or fetched for a hidden page; it is brought up to date when it is seen.
const whileSeen = (callback, waitMs) => throttled(() => document.hidden || callback(), waitMs);
const drawSoon = whileSeen(() => data && draw(), DRAW_MS);
const refreshFigures = whileSeen(() => refreshPart("figures"), FIGURES_MS);
const refreshMetrics = whileSeen(() => refreshPart("metrics"), METRICS_MS);
const refreshCheck = whileSeen(() => isCheckLoaded() && refreshPart("check"), CHECK_MS);
const isCheckLoaded = () => document.querySelector("[data-refreshed=check]") !== null;

async function refreshPart(name) {
  try {
    (await refresh(`${base}/${name}`)).forEach(drawCharts);
  } catch {
    // The next measurement or period tries again.
  }
}

document.addEventListener("visibilitychange", () => {
  drawSoon();
  refreshFigures();
});
setInterval(() => {
  refreshFigures();
  refreshMetrics();
  refreshCheck();
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
    const following = data.complete ? texts["page.live"] : texts["page.reading"];
    showState(state, state === "lost" ? texts["page.lost"] : following, problem);
  },
});

function showState(state, words, problem) {
  liveStatus.className = `live ${state}`;
  liveStatus.textContent = words;
  liveStatus.title = problem;
}

async function load() {
  try {
    data = await ask(`${base}/curves.json?pixels=${page.clientWidth}`, "json");
  } catch (error) {
    showState("lost", failed(error), "");
    setTimeout(load, RETRY_MS);
    return;
  }
  draw();
  live.follow(data);
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
  await fill(target, `${base}/groups?${new URLSearchParams(chosen)}`);
  target.scrollIntoView({ block: "nearest" });
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
