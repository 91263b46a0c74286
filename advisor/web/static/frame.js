// What all pictures have in common: they are drawn when they are scrolled to, and their values are
// in words and in a table as well.
import { element, onceVisible, texts } from "./dom.js";
import { number } from "./format.js";

const opened = new Set(); // titles whose table is open, for pictures that are made again
const frames = new Set(); // the listener keeps none that has left the page
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  frames.forEach((each) => each.draw(true));
});

// The container says what the picture shows, and setData() gets its data; both are described in
// advisor/web/charts.py. The owner draws on the picture, an element with a tag: its methods are
// draw(isNew), resize() and onKey(event).
export class Frame {
  constructor(container, tag, keys, owner) {
    this.owner = owner;
    this.container = container;
    this.spec = JSON.parse(container.dataset.spec);
    this.section = container.closest("section");
    this.data = null;
    this.isVisible = false;
    const named = { tabindex: "0", role: "group", "aria-label": container.dataset.title };
    this.picture = element(tag, { class: "plot", "aria-description": keys, ...named });
    this.picture.addEventListener("keydown", (event) => this.isDrawn && owner.onKey(event));
    this.words = element("p", { class: "values", "aria-live": "polite" });
    this.rows = element("div", { class: "scroll tall", ...named });
    const summary = element("summary", {}, texts["page.table"]);
    this.table = element("details", { class: "table" }, summary, this.rows);
    this.table.open = opened.has(container.dataset.title);
    this.table.addEventListener("toggle", () => {
      opened[this.table.open ? "add" : "delete"](container.dataset.title);
      this.fillTable();
    });
    container.replaceChildren(this.picture, this.words, this.table);
    onceVisible(container, () => {
      this.isVisible = true;
      this.draw(true);
    });
    frames.forEach((each) => each.container.isConnected || frames.delete(each));
    frames.add(this);
    new ResizeObserver(() => this.isDrawn && owner.resize()).observe(container);
  }

  get series() {
    const { spec, data } = this;
    return spec.series
      ?? data.names.map((name, i) => ({ label: name || texts.rest, color: i, ...spec.line }));
  }

  get isDrawn() {
    return this.isVisible && this.data?.steps.length > 0 && !this.section.hidden;
  }

  setData(data) {
    if (!this.data?.steps.length) {
      this.words.textContent = data.steps.length ? "" : texts["page.no_points"];
    }
    this.data = data;
    // A picture without values says nothing, and neither does a stack of one point.
    const isReported = data.values.flat().some((value) => value !== null);
    const isFlat = this.spec.is_stacked && data.steps.length === 1;
    this.section.hidden = data.steps.length > 0 && (!isReported || isFlat);
    this.draw(false);
    this.fillTable();
  }

  draw(isNew) {
    if (this.isDrawn) this.owner.draw(isNew);
  }

  value(series, index) {
    return this.text(this.data.values[series][index] ?? null);
  }

  text(value) {
    return number(value, this.spec.digits) + (value === null ? "" : this.spec.y.unit ?? "");
  }

  fillTable() {
    if (!this.table.open || !this.data) return;
    const { series, data: { steps } } = this;
    const names = series.map((each) => element("th", { scope: "col", class: "n" }, each.label));
    const table = element("table");
    table.createTHead().insertRow().append(element("th", { scope: "col" }, texts.step), ...names);
    const body = table.createTBody();
    steps.forEach((step, index) => body.insertRow().append(
      element("th", { scope: "row" }, String(step)),
      ...series.map((_, i) => element("td", { class: "n" }, this.value(i, index))),
    ));
    this.rows.replaceChildren(table);
  }
}
