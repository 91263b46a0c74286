// Shares of layers over the steps: a row for each layer, from input to output.
import { color, element, framed, texts } from "./dom.js";
import { percent } from "./format.js";

const LABEL_PX = 130;
const AXIS_PX = 34;

export class HeatMap {
  constructor(container, title, onChoose) {
    this.onChoose = onChoose;
    this.row = 0;
    this.column = 0;
    this.section = container.closest("section");
    this.canvas = element("canvas");
    this.scale = element("p", { class: "scale" });
    this.frame = framed(container, this.canvas, {
      title,
      keys: texts["page.heat.keys"],
      read: () => ({
        names: this.names ?? [],
        steps: this.steps ?? [],
        cell: (row, column) => percent(this.values[row][column]),
      }),
      onKey: (event) => this.onKey(event),
      draw: () => this.draw(),
      resize: () => this.draw(),
    });
    this.frame.values.after(this.scale);
    this.canvas.addEventListener("pointermove", (event) => this.point(event) && this.describe());
    this.canvas.addEventListener("click", (event) => this.point(event) && this.choose());
  }

  setData({ names, steps, values }) {
    Object.assign(this, { names, steps, values });
    this.section.hidden = steps.length > 0 && values.flat().every((value) => value === null);
    this.draw();
    this.frame.fill();
  }

  draw() {
    if (!this.frame.isVisible || !this.steps) return;
    if (this.section.hidden) return;
    if (!this.steps.length) {
      this.frame.values.textContent = texts["page.no_points"];
      return;
    }
    const width = this.canvas.parentElement.clientWidth;
    this.rowPx = Math.min(Math.max(360 / this.names.length, 9), 24);
    const height = this.rowPx * this.names.length + AXIS_PX;
    const ratio = devicePixelRatio || 1;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    this.canvas.style.height = `${height}px`;
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    this.labelPx = Math.min(LABEL_PX, width * 0.3);
    this.columnPx = (width - this.labelPx - 8) / this.steps.length;
    const known = this.values.flat().filter((value) => value !== null);
    this.top = Math.max(...known.map(Math.abs), 1e-9);
    this.scale.textContent = `${texts.share}: ${percent(Math.min(...known))} – ${percent(Math.max(...known))}`;
    this.drawCells(context, ratio);
    this.drawLabels(context, width, height);
  }

  drawCells(context, ratio) {
    const positive = color("c0");
    const negative = color("c1");
    this.values.forEach((row, r) => row.forEach((value, c) => {
      if (value === null) return;
      context.globalAlpha = Math.min(0.06 + 0.94 * Math.sqrt(Math.abs(value) / this.top), 1);
      context.fillStyle = value < 0 ? negative : positive;
      // Whole pixels of the screen: overlapping edges would show as stripes.
      const left = Math.round((this.labelPx + c * this.columnPx) * ratio) / ratio;
      const right = Math.round((this.labelPx + (c + 1) * this.columnPx) * ratio) / ratio;
      const top = Math.round(r * this.rowPx * ratio) / ratio;
      context.fillRect(left, top, right - left, this.rowPx - 1);
    }));
    context.globalAlpha = 1;
    context.strokeStyle = color("text");
    context.strokeRect(this.labelPx, this.row * this.rowPx, this.columnPx * this.steps.length, this.rowPx - 1);
  }

  drawLabels(context, width, height) {
    context.fillStyle = color("text");
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "right";
    const every = Math.ceil(13 / this.rowPx);
    this.names.forEach((name, r) => {
      if (r % every) return;
      context.fillText(shortened(context, name, this.labelPx - 8), this.labelPx - 6, (r + 0.5) * this.rowPx);
    });
    context.textAlign = "center";
    const marks = Math.max(2, Math.min(Math.floor(width / 120), this.steps.length));
    for (let i = 0; i < marks; i++) {
      const c = Math.round((i * (this.steps.length - 1)) / Math.max(marks - 1, 1));
      const x = Math.min(Math.max(this.labelPx + (c + 0.5) * this.columnPx, this.labelPx + 10), width - 24);
      context.fillText(String(this.steps[c]), x, height - AXIS_PX + 9);
    }
    context.fillText(texts.step, (this.labelPx + width) / 2, height - 7);
  }

  point(event) {
    if (!this.columnPx) return false;
    const row = Math.floor(event.offsetY / this.rowPx);
    if (row < 0 || row >= this.names.length) return false;
    this.row = row;
    const column = Math.floor((event.offsetX - this.labelPx) / this.columnPx);
    this.column = Math.min(Math.max(column, 0), this.steps.length - 1);
    return true;
  }

  onKey(event) {
    if (!this.columnPx) return;
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key === "Enter") this.choose();
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    this.row = Math.min(Math.max(this.row + move[0], 0), this.names.length - 1);
    this.column = Math.min(Math.max(this.column + move[1], 0), this.steps.length - 1);
    this.draw();
    this.describe();
  }

  describe() {
    const value = this.values[this.row][this.column];
    this.frame.values.textContent = `${texts.step} ${this.steps[this.column]}, ${this.names[this.row]}: ${percent(value)}`;
  }

  choose() {
    this.draw();
    this.describe();
    this.onChoose(this.names[this.row]);
  }
}

function shortened(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let end = text.length;
  while (end > 1 && context.measureText(`…${text.slice(-end)}`).width > width) end--;
  return `…${text.slice(-end)}`;
}
