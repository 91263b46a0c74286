// Two runs or profiles in one chart each.
/* global uPlot */
import { Chart } from "./chart.js";
import { box, fetchJson, loadParts, titleOf } from "./dom.js";

const page = document.getElementById("page");
const CHARTS = {
  run: [["total_rate", "total_rate.axis", false], ["loss", "page.loss.axis", false],
    ["max_multiplier", "multiplier.axis", true]],
  profile: [["unit_rate", "page.unit_rate.axis", true]],
};

async function load() {
  const texts = JSON.parse(page.dataset.texts);
  loadParts(texts);
  const { kind, sides } = await fetchJson(page.dataset.base);
  for (const [name, axis, log] of CHARTS[kind]) {
    const chart = new Chart(box(`compare-${name}`), texts, {
      title: titleOf(`compare-${name}`),
      y: { label: texts[axis], log },
      series: sides.map((side, i) => ({ label: side.name, color: i, width: 2, dash: i ? [7, 4] : [] })),
    });
    chart.setData(joined(sides.map((side) => [side.steps, side[name]])));
  }
}

// Both sides over the steps of either; between its own points, a side keeps a straight line.
function joined(tables) {
  const steps = [...new Set(tables.flatMap((table) => table[0]))].sort((a, b) => a - b);
  return [steps, ...tables.map(([own, values]) => steps.map((step) => between(own, values, step)))];
}

function between(steps, values, step) {
  const after = steps.findIndex((each) => each >= step);
  if (after < 0) return null;
  if (steps[after] === step) return values[after];
  if (after === 0 || values[after] === null || values[after - 1] === null) return null;
  const part = (step - steps[after - 1]) / (steps[after] - steps[after - 1]);
  return values[after - 1] + part * (values[after] - values[after - 1]);
}

if (page) load();
