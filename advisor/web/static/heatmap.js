// Shares of layers over the steps: a row for each layer, from input to output.
import { color, element, texts } from "./dom.js";
import { Frame } from "./frame.js";

const LABEL_PX = 130;
const AXIS_PX = 34;
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

export class HeatMap {
  constructor(container, onChoose) {
    this.onChoose = onChoose;
    this.row = 0;
    this.column = 0;
    this.frame = new Frame(container, "canvas", texts["page.heat.keys"], this);
    this.canvas = this.frame.picture;
    this.scale = element("p", { class: "scale" });
    this.frame.words.after(this.scale);
    this.canvas.addEventListener("pointermove", (event) => this.point(event) && this.describe());
    this.canvas.addEventListener("click", (event) => this.point(event) && this.choose());
  }

  resize() {
    this.draw();
  }

  draw() {
    const { steps, names } = this.frame.data;
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
    this.drawCells(context, ratio);
    this.drawLabels(context, width, height);
  }

  drawCells(context, ratio) {
    const { spec, data: { steps, values } } = this.frame;
    const [positive, negative] = [color("c0"), color("c1")];
    const known = values.flat().filter((value) => value !== null);
    const [low, high] = [Math.min(...known), Math.max(...known)];
    const top = Math.max(-low, high, 1e-9);
    const range = [low, high].map((value) => this.frame.text(value)).join(" – ");
    this.scale.textContent = `${spec.y.label}: ${range}`;
    // Whole pixels of the screen: overlapping edges would show as stripes.
    const whole = (place) => Math.round(place * ratio) / ratio;
    const left = (column) => whole(this.labelPx + column * this.columnPx);
    values.forEach((row, r) => row.forEach((value, c) => {
      if (value === null) return;
      context.globalAlpha = Math.min(0.06 + 0.94 * Math.sqrt(Math.abs(value) / top), 1);
      context.fillStyle = value < 0 ? negative : positive;
      context.fillRect(left(c), whole(r * this.rowPx), left(c + 1) - left(c), this.rowPx - 1);
    }));
    context.globalAlpha = 1;
    context.strokeStyle = color("text");
    const width = this.columnPx * steps.length;
    context.strokeRect(this.labelPx, this.row * this.rowPx, width, this.rowPx - 1);
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
    const row = Math.floor(event.offsetY / this.rowPx);
    if (!this.frame.isDrawn || row < 0 || row >= this.frame.data.names.length) return false;
    this.move(row, Math.floor((event.offsetX - this.labelPx) / this.columnPx));
    return true;
  }

  onKey(event) {
    if (event.key === "Enter") this.choose();
    if (!(event.key in MOVES)) return;
    event.preventDefault();
    const [down, right] = MOVES[event.key];
    this.move(this.row + down, this.column + right);
    this.draw();
    this.describe();
  }

  // Moves the cursor to the cell that is nearest to a place.
  move(row, column) {
    const { names, steps } = this.frame.data;
    this.row = Math.min(Math.max(row, 0), names.length - 1);
    this.column = Math.min(Math.max(column, 0), steps.length - 1);
  }

  describe() {
    const { words, data: { steps, names } } = this.frame;
    const place = `${texts.step} ${steps[this.column]}, ${names[this.row]}`;
    words.textContent = `${place}: ${this.frame.value(this.row, this.column)}`;
  }

  choose() {
    this.draw();
    this.describe();
    this.onChoose(this.frame.data.names[this.row]);
  }
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
