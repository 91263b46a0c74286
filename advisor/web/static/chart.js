// A chart of curves over the steps: lines, bands and stacks, with a cursor that keys move too.
/* global uPlot */
import { color, texts } from "./dom.js";
import { logTicks, number } from "./format.js";
import { Frame } from "./frame.js";

const COLORS = 8;
const DASHES = [[], [8, 4], [2, 3]];
const FONT = "12px system-ui, sans-serif";
const HEIGHT_PX = 260;

export class Chart {
  constructor(container) {
    this.plot = null;
    this.names = "";
    this.only = null;
    this.index = null;
    this.frame = new Frame(container, "div", texts["page.keys"], this);
  }

  // Shows one series only, or the rest if it has no series of its own; null shows all.
  show(label) {
    this.only = label;
    if (!this.plot) return;
    const labels = this.frame.series.map((each) => each.label);
    const shown = label === null || labels.includes(label) ? label : texts.rest;
    labels.forEach((each, i) => {
      this.plot.setSeries(i + 1, { show: shown === null || each === shown });
    });
  }

  draw(isNew) {
    const { spec, data: { steps, names, values }, picture, words } = this.frame;
    // A copy of the steps: the next measurement is added to them, and is not what was drawn before.
    const drawn = [[...steps], ...(spec.is_stacked ? stacked(values) : values)];
    const named = JSON.stringify(names);
    if (this.plot && !isNew && named === this.names) {
      const all = this.plot.data[0];
      const { min, max } = this.plot.scales.x;
      const isZoomed = all.length > 1 && (min > all[0] || max < all.at(-1));
      this.plot.setData(drawn, !isZoomed);
      return;
    }
    this.plot?.destroy();
    this.names = named;
    words.textContent = "";
    this.plot = new uPlot(this.plotOptions(), drawn, picture);
    if (this.only !== null) this.show(this.only);
  }

  resize() {
    const { clientWidth: width } = this.frame.picture;
    if (width && width !== this.plot.width) this.plot.setSize({ width, height: this.plot.height });
  }

  plotOptions() {
    const { spec, series, picture } = this.frame;
    const steps = () => this.frame.data.steps;
    const shownIndex = (index) => index ?? steps().length - 1; // without a cursor, the last values
    const bands = spec.is_stacked ? series.slice(1).map((_, i) => [i + 1, i]) : spec.bands ?? [];
    const alpha = spec.is_stacked ? 0.75 : 0.2;
    const hasPoints = steps().length < (spec.is_stacked ? 2 : 40);
    return {
      width: picture.clientWidth || 600,
      height: spec.height ?? HEIGHT_PX,
      cursor: { drag: { x: true, y: false }, points: { size: 6 } },
      legend: { markers: { fill: (_plot, i) => (i ? seriesColor(series[i - 1]) : null) } },
      scales: { x: { time: false }, y: scale(spec.y), ...(spec.z && { z: scale(spec.z) }) },
      axes: [
        { ...axis({ label: texts.step }, "x"), size: 34 },
        axis(spec.y, "y"),
        ...(spec.z ? [{ ...axis(spec.z, "z"), side: 1, grid: { show: false } }] : []),
      ],
      bands: bands.map(([upper, lower]) => ({
        series: [upper + 1, lower + 1], fill: fill(series[upper], alpha),
      })),
      series: [
        {
          label: texts.step,
          value: (_plot, _step, _s, index) => String(steps()[shownIndex(index)]),
        },
        ...series.map((each, i) => ({
          label: each.label.replace(/[._/]/g, "$&\u200b"), // where a line may end
          class: each.is_edge ? "edge" : null, // of its row in the legend
          scale: each.axis ?? "y",
          stroke: seriesColor(each),
          width: each.width ?? 1.5,
          dash: each.dash ?? DASHES[Math.floor(each.color / COLORS) % DASHES.length],
          fill: spec.is_stacked && i === 0 ? fill(each, alpha) : undefined,
          points: { show: hasPoints && !each.is_edge, size: 5 },
          value: (_plot, _value, _s, index) => this.frame.value(i, shownIndex(index)),
        })),
      ],
      hooks: { setCursor: [(plot) => { this.index = plot.cursor.idx ?? this.index; }] },
    };
  }

  onKey(event) {
    const { series, words, data: { steps } } = this.frame;
    const last = steps.length - 1;
    const now = this.index ?? last;
    const jump = event.shiftKey ? 10 : 1;
    const moves = { ArrowLeft: now - jump, ArrowRight: now + jump, Home: 0, End: last };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const index = Math.min(Math.max(moves[event.key], 0), last);
    const left = this.plot.valToPos(steps[index], "x");
    this.plot.setCursor({ left, top: this.plot.over.clientHeight / 2 });
    this.index = index; // the cursor may stand on a neighbor that has the same pixel
    const values = series
      .map((each, i) => (each.is_edge ? "" : `${each.label} ${this.frame.value(i, index)}`))
      .filter(Boolean);
    words.textContent = `${texts.step} ${steps[index]}: ${values.join(", ")}`;
  }
}

// Draws the charts of an element whose data are part of the page.
export function drawCharts(root) {
  for (const container of root.querySelectorAll("[data-curves]")) {
    new Chart(container).frame.setData(JSON.parse(container.dataset.curves));
  }
}

// Each series on top of those before it.
function stacked(values) {
  const sums = values[0].map(() => 0);
  return values.map((series) => series.map((value, i) => {
    sums[i] += value ?? 0;
    return value === null ? null : sums[i];
  }));
}

function seriesColor(series) {
  return color(`c${series.color % COLORS}`);
}

function fill(series, alpha) {
  return seriesColor(series) + Math.round(alpha * 255).toString(16).padStart(2, "0");
}

function scale({ log, within }) {
  if (log) return { distr: 3, range: (_plot, low, high) => [low / 1.1 || 0.1, high * 1.1 || 10] };
  if (!within) return {};
  return { range: (_plot, low, high) => [Math.min(within[0], low), Math.max(within[1], high)] };
}

function axis({ label, log }, name) {
  return {
    scale: name, label, stroke: color("text"), font: FONT, labelFont: FONT, labelSize: 22,
    grid: { stroke: color("grid"), width: 1 }, ticks: { stroke: color("grid"), width: 1, size: 4 },
    values: (_plot, ticks) => ticks.map((tick) => (tick === null ? "" : number(tick, 7))),
    size: (_plot, words) => 22 + 7 * Math.max(4, ...(words ?? []).map((each) => each.length)),
    ...(log && {
      splits: (_plot, _axis, low, high) => logTicks(low, high),
      filter: (_plot, ticks) => ticks,
    }),
  };
}
