// The page of a run.
import { Chart } from "./chart.js";
import {
  box, failed, fetchJson, fetchPart, loadParts, nodesOf, page, texts, throttled, titleOf,
} from "./dom.js";
import { percent } from "./format.js";
import { HeatMap } from "./heatmap.js";
import { LiveRun } from "./live.js";

const MAX_POINTS = 4000; // then the server reduces the curves again
const METRICS_MS = 20000; // they come without an event of the run
const base = page.dataset.base;
const liveStatus = document.getElementById("live");
let data = null;
let charts = null;

const roleName = (name) => name || texts.rest;
const inPercent = (values) => values.map((value) => (value === null ? null : 100 * value));
const percentOf = (value) => percent(value === null || value === undefined ? null : value / 100);

function curve(name, options) {
  return new Chart(box(name), { title: titleOf(name), ...options });
}

function makeCharts() {
  const roles = data.roles.names.map((name, i) => ({ label: roleName(name), color: i }));
  charts = {
    total: curve("total", {
      y: { label: texts["total_rate.axis"] },
      series: [
        { label: texts.total_rate, color: 0, width: 2 },
        { label: texts.reference, color: 1, dash: [6, 4] },
        { label: `${texts["reference.band"]} +`, color: 1, width: 0.5, isEdge: true },
        { label: `${texts["reference.band"]} −`, color: 1, width: 0.5, isEdge: true },
      ],
      bands: [{ upper: 2, lower: 3 }],
    }),
    shares: curve("shares", {
      y: { label: texts["share.axis"], range: (_plot, low, high) => [Math.min(0, low), Math.max(100, high)] },
      stacked: true, height: 300,
      series: roles.map((role) => ({ ...role, format: percentOf, width: 0.5 })),
    }),
    multipliers: curve("multipliers", {
      y: { label: texts["multiplier.axis"], log: true }, height: 300, series: roles,
    }),
    effective: curve("effective", {
      y: { label: texts["page.effective.axis"], log: true }, height: 300, series: roles,
    }),
    errors: curve("errors", {
      y: { label: texts["page.error.axis"] },
      series: [
        { label: texts.relative_error, color: 0, format: percentOf, width: 2 },
        { label: texts["page.high_error"], color: 0, format: percentOf, width: 0.5 },
        { label: texts.linearity_error, color: 1, format: percentOf, dash: [6, 4] },
      ],
      bands: [{ upper: 1, lower: 0 }],
    }),
    loss: curve("loss", {
      y: { label: texts["page.loss.axis"] },
      z: { label: texts["learning_rate.axis"] },
      series: [
        { label: texts.loss, color: 0, width: 2 },
        { label: texts.learning_rate, color: 1, axis: "z", dash: [6, 4] },
      ],
    }),
    blocks: new HeatMap(box("blocks"), titleOf("blocks"), (block) => listGroups({ block })),
  };
}

function drawCharts() {
  const started = performance.now();
  const { scalars: s, roles, shares, blocks } = data;
  charts.total.setData([s.steps, s.total_rate, s.reference_total_rate, s.reference_high, s.reference_low]);
  charts.shares.setData([shares.steps, ...shares.values.map(inPercent)]);
  charts.multipliers.setData([roles.steps, ...roles.role_multipliers]);
  charts.effective.setData([roles.steps, ...roles.role_learning_rates]);
  charts.errors.setData([s.steps, ...[s.relative_error, s.high_relative_error, s.linearity_error].map(inPercent)]);
  charts.loss.setData([s.steps, s.loss, s.learning_rate]);
  charts.blocks.setData(blocks);
  performance.measure("draw-charts", { start: started });
  page.dataset.measurements = data.measurements;
}

function addMeasurement(point, id) {
  data.last_id = id;
  data.measurements += 1;
  for (const [name, values] of Object.entries(data.scalars)) {
    values.push(name === "steps" ? point.step : point[name][0]);
  }
  for (const part of [data.roles, data.shares, data.blocks]) part.steps.push(point.step);
  for (const [curves, name] of [
    [data.roles.role_multipliers, "role_multipliers"], [data.roles.role_learning_rates, "role_learning_rates"],
    [data.shares.values, "role_shares"], [data.blocks.values, "block_shares"],
  ]) curves.forEach((values, i) => values.push(point[name][i]));
  drawSoon();
  refreshFigures();
  if (data.scalars.steps.length > MAX_POINTS) load();
}

const drawSoon = throttled(() => {
  if (!document.hidden) drawCharts();
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
async function loadMetrics() {
  const target = document.getElementById("metrics");
  if (document.hidden || target.contains(document.activeElement)) return;
  const [part, { metrics }] = await Promise.all([
    fetchPart(`${base}/metrics`), fetchJson(`${base}/metrics.json`),
  ]);
  target.replaceChildren(...nodesOf(part));
  for (const container of target.querySelectorAll("[data-metric]")) {
    const { name, steps, values } = metrics.find((each) => each.name === container.dataset.metric) ?? {};
    if (!steps) continue;
    new Chart(container, {
      title: name, y: { label: texts["page.metric.axis"] }, height: 200,
      series: [{ label: name, color: 0, width: 2 }],
    }).setData([steps, values]);
  }
}

const refreshMetrics = throttled(() => loadMetrics().catch(() => {}), METRICS_MS);
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
  const names = JSON.stringify([data.roles.names, data.blocks.names]);
  if (!charts || charts.names !== names) {
    makeCharts();
    charts.names = names;
  }
  drawCharts();
  live.follow({ lastId: data.last_id, shape: data.shape, complete: data.complete });
  refreshMetrics(); // below the first charts
}

async function listGroups(chosen) {
  const target = document.getElementById("groups");
  for (const name of ["shares", "multipliers", "effective"]) {
    charts[name].show(chosen.role ? roleName(chosen.role) : null);
  }
  if (!chosen.role && !chosen.block) {
    target.replaceChildren();
    return;
  }
  try {
    const part = await fetchPart(`${base}/groups?${new URLSearchParams(chosen)}`);
    const close = document.createElement("button");
    close.textContent = texts["page.close"];
    close.addEventListener("click", () => listGroups({}));
    target.replaceChildren(...nodesOf(part), close);
    target.scrollIntoView({ block: "nearest" });
  } catch (error) {
    target.textContent = failed(error);
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-role]");
  if (!link || !charts) return;
  event.preventDefault();
  listGroups({ role: link.dataset.role });
});

load();
loadParts();
