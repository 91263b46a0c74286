// Two runs or profiles in one chart each.
/* global uPlot */
import { Chart } from "./chart.js";
import { box, failed, fetchJson, loadParts, page, texts, titleOf } from "./dom.js";

const CHARTS = {
  run: [["total_rate", "total_rate.axis", false], ["loss", "page.loss.axis", false],
    ["max_multiplier", "multiplier.axis", true]],
  profile: [["unit_rate", "page.unit_rate.axis", true]],
};

async function load() {
  loadParts();
  const { kind, names, steps, curves } = await fetchJson(page.dataset.base);
  for (const [name, axis, log] of CHARTS[kind]) {
    const chart = new Chart(box(`compare-${name}`), {
      title: titleOf(`compare-${name}`),
      y: { label: texts[axis], log },
      series: names.map((label, i) => ({ label, color: i, width: 2, dash: i ? [7, 4] : [] })),
    });
    chart.setData([steps, ...curves[name]]);
  }
}

if (page) load().catch((error) => page.prepend(failed(error)));
