// A chart of curves over the steps: lines, bands and stacks, with a cursor that keys move too.
/* global uPlot */
import { color, element, framed, texts } from "./dom.js";
import { logTicks, number } from "./format.js";

const COLORS = 8;
const DASHES = [[], [8, 4], [2, 3]];

function seriesColor(index) {
  return color(`c${index % COLORS}`);
}

// One chart in a container.
//
// options.series: {label, color (index), axis ("y" or "z"), dash, width, format, isEdge (of a band)}
// options.bands: [{upper, lower}] of indices of series
// options.y, options.z: {label, log, format, range} of the two axes
// options.stacked: whether the series add up
// The data are [steps, ...values of the series], all of the same length, null for no value.
export class Chart {
  constructor(container, options) {
    this.options = options;
    this.data = null;
    this.plot = null;
    this.only = null;
    this.index = null;
    this.canvasBox = element("div", { class: "plot" });
    this.frame = framed(container, this.canvasBox, {
      title: options.title,
      keys: texts["page.keys"],
      read: () => ({
        names: options.series.map((each) => each.label),
        steps: this.data?.[0] ?? [],
        cell: (series, index) => this.format(series, index),
      }),
      onKey: (event) => this.onKey(event),
      draw: () => this.redraw(),
      resize: () => this.resize(),
    });
    this.section = container.dataset.chart ? container.closest("section") : container;
  }

  setData(data) {
    this.data = data;
    const [steps, ...series] = data;
    // Nothing was reported: a chart without curves says nothing.
    this.section.hidden = steps.length > 0 && series.flat().every((value) => value === null);
    if (!this.frame.isVisible) return;
    if (this.plot) {
      const all = this.plot.data[0];
      const { min, max } = this.plot.scales.x;
      const isZoomed = all.length > 1 && (min > all[0] || max < all[all.length - 1]);
      this.plot.setData(this.drawn(), !isZoomed);
    } else {
      this.draw();
    }
    this.frame.fill();
  }

  // Shows one series only; null shows all.
  show(label) {
    this.only = label;
    this.plot?.series.forEach((series, i) => {
      if (i) this.plot.setSeries(i, { show: label === null || series.label === label });
    });
  }

  drawn() {
    if (!this.options.stacked) return this.data;
    const [steps, ...values] = this.data;
    const sums = new Array(steps.length).fill(0);
    const tops = values.map((series) => series.map((value, i) => {
      sums[i] += value ?? 0;
      return value === null ? null : sums[i];
    }));
    return [steps, ...tops];
  }

  draw() {
    if (!this.data) return;
    if (!this.data[0].length) {
      this.frame.values.textContent = texts["page.no_points"];
      return;
    }
    this.frame.values.textContent = "";
    this.plot = new uPlot(this.plotOptions(), this.drawn(), this.canvasBox);
    const rows = this.plot.root.querySelectorAll(".u-legend .u-series");
    this.options.series.forEach((each, i) => {
      rows[i + 1].hidden = Boolean(each.isEdge);
    });
    if (this.only !== null) this.show(this.only);
  }

  redraw() {
    this.plot?.destroy();
    this.plot = null;
    this.draw();
  }

  resize() {
    const width = this.canvasBox.clientWidth;
    if (this.plot && width && width !== this.plot.width) {
      this.plot.setSize({ width, height: this.options.height ?? 260 });
    }
  }

  plotOptions() {
    const { series, bands = [], stacked } = this.options;
    const stackBands = stacked
      ? series.slice(1).map((_, i) => ({ series: [i + 2, i + 1], fill: fill(series[i + 1], 0.75) }))
      : [];
    return {
      width: this.canvasBox.clientWidth || 600,
      height: this.options.height ?? 260,
      cursor: { drag: { x: true, y: false }, points: { size: 6 } },
      legend: { live: true },
      scales: {
        x: { time: false },
        y: scale(this.options.y),
        ...(this.options.z ? { z: scale(this.options.z) } : {}),
      },
      axes: [
        axis({ label: texts.step }, "x"),
        axis(this.options.y, "y"),
        ...(this.options.z ? [{ ...axis(this.options.z, "z"), side: 1, grid: { show: false } }] : []),
      ],
      bands: [
        ...bands.map((band) => ({
          series: [band.upper + 1, band.lower + 1], fill: fill(series[band.upper], 0.2),
        })),
        ...stackBands,
      ],
      series: [
        {
          label: texts.step,
          value: (_plot, _step, _s, index) => String(this.data[0][index ?? this.data[0].length - 1]),
        },
        ...series.map((each, i) => ({
          label: each.label,
          scale: each.axis ?? "y",
          stroke: seriesColor(each.color ?? i),
          width: each.width ?? 1.5,
          dash: each.dash ?? DASHES[Math.floor((each.color ?? i) / COLORS) % DASHES.length],
          fill: stacked && i === 0 ? fill(each, 0.75) : undefined,
          spanGaps: false,
          points: { show: this.data[0].length < (stacked ? 2 : 40) && !each.isEdge, size: 5 },
          value: (_plot, _value, _s, index) => this.format(i, index ?? this.data[0].length - 1),
        })),
      ],
      hooks: { setCursor: [(plot) => { if (plot.cursor.idx !== null) this.index = plot.cursor.idx; }] },
    };
  }

  format(series, index) {
    const write = this.options.series[series].format ?? number;
    return write(this.data[series + 1][index]);
  }

  onKey(event) {
    if (!this.plot) return;
    const last = this.data[0].length - 1;
    const now = this.index ?? last;
    const jump = event.shiftKey ? 10 : 1;
    const moves = { ArrowLeft: now - jump, ArrowRight: now + jump, Home: 0, End: last };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const index = Math.min(Math.max(moves[event.key], 0), last);
    const left = this.plot.valToPos(this.data[0][index], "x");
    this.plot.setCursor({ left, top: this.plot.over.clientHeight / 2 });
    this.index = index; // the cursor may stand on a neighbor that has the same pixel
    const values = this.options.series
      .map((each, i) => (each.isEdge ? "" : `${each.label} ${this.format(i, this.index)}`));
    this.frame.values.textContent = `${texts.step} ${this.data[0][this.index]}: ${values.filter(Boolean).join(", ")}`;
  }
}

function fill(series, alpha) {
  const hex = Math.round(alpha * 255).toString(16).padStart(2, "0");
  return `${seriesColor(series.color ?? 0)}${hex}`;
}

function scale(options) {
  if (!options.log) return { range: options.range ?? padded };
  return {
    distr: 3,
    range: (_plot, low, high) => {
      if (low === null || !(low > 0)) return [0.1, 10];
      return [low / 1.1, high * 1.1];
    },
  };
}

function padded(_plot, low, high) {
  if (low === null) return [0, 1];
  const pad = (high - low || Math.abs(high) || 1) * 0.06;
  return [low >= 0 && low - pad < 0 ? 0 : low - pad, high + pad];
}

function axis(options, name) {
  const font = "12px system-ui, sans-serif";
  const made = {
    scale: name, label: options.label, stroke: color("text"), font, labelFont: font, labelSize: 22,
    grid: { stroke: color("grid"), width: 1 }, ticks: { stroke: color("grid"), width: 1, size: 4 },
    values: (_plot, ticks) => ticks.map((tick) => (tick === null ? "" : (options.format ?? number)(tick))),
  };
  made.size = name === "x" ? 34 : (_plot, values) => 22 + 7 * Math.max(4, ...(values ?? []).map((v) => v.length));
  if (options.log) {
    made.splits = (_plot, _axis, low, high) => logTicks(low, high);
    made.filter = (_plot, ticks) => ticks;
  }
  return made;
}
