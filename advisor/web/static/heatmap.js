// Shares of layers over the steps: a row for each layer, from input to output.
import { color, element, texts } from "./dom.js";
import { Frame } from "./frame.js";

const LABEL_PX = 130;
const AXIS_PX = 34;

export class HeatMap {
  constructor(container, onChoose) {
    this.onChoose = onChoose;
    this.row = 0;
    this.column = 0;
    this.canvas = element("canvas");
    this.scale = element("p", { class: "scale" });
    this.frame = new Frame(container, this.canvas, texts["page.heat.keys"], this);
    this.frame.words.after(this.scale);
    this.canvas.addEventListener("pointermove", (event) => this.point(event) && this.describe());
    this.canvas.addEventListener("click", (event) => this.point(event) && this.choose());
  }

  setData(data) {
    this.frame.setData(data);
  }

  resize() {
    this.draw();
  }

  draw() {
    const { steps, names, values } = this.frame.data;
    const width = this.canvas.parentElement.clientWidth;
    this.rowPx = Math.min(Math.max(360 / names.length, 9), 24);
    this.labelPx = Math.min(LABEL_PX, width * 0.3);
    this.columnPx = (width - this.labelPx - 8) / steps.length;
    const height = this.rowPx * names.length + AXIS_PX;
    const ratio = devicePixelRatio || 1;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    this.canvas.style.height = `${height}px`;
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    this.drawCells(context, values, ratio);
    this.drawLabels(context, width, height);
  }

  drawCells(context, values, ratio) {
    const { spec, data } = this.frame;
    const colors = { positive: color("c0"), negative: color("c1") };
    const known = values.flat().filter((value) => value !== null);
    const top = Math.max(...known.map(Math.abs), 1e-9);
    const [low, high] = [Math.min(...known), Math.max(...known)];
    const words = [low, high].map((value) => this.frame.text(value));
    this.scale.textContent = `${spec.y.label}: ${words.join(" – ")}`;
    values.forEach((row, r) => row.forEach((value, c) => {
      if (value === null) return;
      context.globalAlpha = Math.min(0.06 + 0.94 * Math.sqrt(Math.abs(value) / top), 1);
      context.fillStyle = value < 0 ? colors.negative : colors.positive;
      // Whole pixels of the screen: overlapping edges would show as stripes.
      const left = Math.round((this.labelPx + c * this.columnPx) * ratio) / ratio;
      const right = Math.round((this.labelPx + (c + 1) * this.columnPx) * ratio) / ratio;
      const upper = Math.round(r * this.rowPx * ratio) / ratio;
      context.fillRect(left, upper, right - left, this.rowPx - 1);
    }));
    context.globalAlpha = 1;
    context.strokeStyle = color("text");
    context.strokeRect(
      this.labelPx, this.row * this.rowPx, this.columnPx * data.steps.length, this.rowPx - 1,
    );
  }

  drawLabels(context, width, height) {
    const { steps, names } = this.frame.data;
    context.fillStyle = color("text");
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "right";
    const every = Math.ceil(13 / this.rowPx);
    names.forEach((name, r) => {
      if (r % every) return;
      const words = shortened(context, name, this.labelPx - 8);
      context.fillText(words, this.labelPx - 6, Math.max((r + 0.5) * this.rowPx, 7));
    });
    context.textAlign = "center";
    const apart = Math.ceil(steps.length / Math.max(Math.floor(width / 120), 2));
    for (let c = 0; c < steps.length; c += apart) {
      const x = this.labelPx + (c + 0.5) * this.columnPx;
      const within = Math.min(Math.max(x, this.labelPx + 10), width - 24);
      context.fillText(String(steps[c]), within, height - AXIS_PX + 9);
    }
    context.fillText(texts.step, (this.labelPx + width) / 2, height - 7);
  }

  // Moves the cursor to the cell under the pointer, if there is one.
  point(event) {
    if (!this.frame.isDrawn) return false;
    const { steps, names } = this.frame.data;
    const row = Math.floor(event.offsetY / this.rowPx);
    if (row < 0 || row >= names.length) return false;
    this.row = row;
    this.column = inside(Math.floor((event.offsetX - this.labelPx) / this.columnPx), steps);
    return true;
  }

  onKey(event) {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key === "Enter") this.choose();
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    this.row = inside(this.row + move[0], this.frame.data.names);
    this.column = inside(this.column + move[1], this.frame.data.steps);
    this.draw();
    this.describe();
  }

  describe() {
    const { steps, names } = this.frame.data;
    const value = this.frame.value(this.row, this.column);
    const place = `${texts.step} ${steps[this.column]}, ${names[this.row]}`;
    this.frame.words.textContent = `${place}: ${value}`;
  }

  choose() {
    this.draw();
    this.describe();
    this.onChoose(this.frame.data.names[this.row]);
  }
}

// The index of a list that is nearest to a number.
function inside(index, list) {
  return Math.min(Math.max(index, 0), list.length - 1);
}

// The end of a name that fits, from a dot on where it can.
function shortened(context, name, width) {
  const fits = (text) => context.measureText(text).width <= width;
  if (fits(name)) return name;
  const parts = name.split(".");
  while (parts.length > 1 && !fits(`…${parts.join(".")}`)) parts.shift();
  let end = parts.join(".");
  while (end.length > 1 && !fits(`…${end}`)) end = end.slice(1);
  return `…${end}`;
}
