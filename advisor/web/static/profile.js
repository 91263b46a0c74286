// The page of a profile.
import { Chart } from "./chart.js";
import { box, failed, fetchJson, page, texts, titleOf } from "./dom.js";


async function load() {
  const data = await fetchJson(`${page.dataset.base}/curves.json`);
  const lines = data.names.map((name, i) => ({ label: name, color: i }));
  const hasBands = data.low.length > 0;
  const edges = (sign) => lines.map((line) => ({ ...line, label: `${line.label} ${sign}`, width: 0.3, isEdge: true }));
  const count = lines.length;
  new Chart(box("unit_rates"), {
    title: titleOf("unit_rates"),
    height: 320,
    y: { label: texts["page.unit_rate.axis"], log: true },
    series: hasBands ? [...lines, ...edges("−"), ...edges("+")] : lines,
    bands: hasBands ? lines.map((_, i) => ({ upper: 2 * count + i, lower: count + i })) : [],
  }).setData([data.steps, ...data.unit_rates, ...data.low, ...data.high]);
  new Chart(box("schedule"), {
    title: titleOf("schedule"),
    y: { label: texts["learning_rate.axis"] },
    series: [{ label: texts.learning_rate, color: 0, width: 2 }],
  }).setData([data.steps, data.learning_rate]);
}

load().catch((error) => {
  box("unit_rates").textContent = failed(error);
});
