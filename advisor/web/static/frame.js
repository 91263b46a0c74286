// What all pictures have in common: they are drawn when they are scrolled to, and their values are
// in words and in a table as well.
import { element, onceVisible, texts } from "./dom.js";
import { number } from "./format.js";

const frames = new Set(); // the listener keeps none that has left the page
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  frames.forEach((each) => each.draw(true));
});

// The container says what the picture shows, and setData() gets its data; both are described in
// advisor/web/charts.py. The owner draws the picture: its methods are draw(isNew), resize() and
// onKey(event).
export class Frame {
  constructor(container, picture, keys, owner) {
    this.owner = owner;
    this.container = container;
    this.spec = JSON.parse(container.dataset.spec);
    this.title = container.dataset.title;
    this.section = container.closest("section");
    this.data = null;
    this.isVisible = false;
    this.isEmpty = false;
    this.words = element("p", { class: "values", "aria-live": "polite" });
    const summary = element("summary", {}, texts["page.table"]);
    this.table = element("details", { class: "table" }, summary);
    this.table.addEventListener("toggle", () => this.fillTable());
    const said = { "aria-label": this.title, "aria-description": keys };
    for (const [name, value] of Object.entries({ tabindex: "0", role: "group", ...said })) {
      picture.setAttribute(name, value);
    }
    picture.addEventListener("keydown", (event) => this.isDrawn && owner.onKey(event));
    container.replaceChildren(picture, this.words, this.table);
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
    return this.isVisible && this.data !== null && !this.isEmpty && !this.section.hidden;
  }

  setData(data) {
    this.data = data;
    this.isEmpty = !data.steps.length;
    // A picture without values says nothing, and neither does a stack of one point.
    const isReported = data.values.flat().some((value) => value !== null);
    const isFlat = this.spec.is_stacked && data.steps.length === 1;
    this.section.hidden = !this.isEmpty && (!isReported || isFlat);
    this.draw(false);
    this.fillTable();
  }

  draw(isNew) {
    if (this.isEmpty) this.words.textContent = texts["page.no_points"];
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
    const head = [texts.step, ...series.map((each) => each.label)]
      .map((name, i) => element("th", { scope: "col", class: i ? "n" : "" }, name));
    const rows = steps.map((step, index) => element(
      "tr", {}, element("th", { scope: "row" }, String(step)),
      ...series.map((_, i) => element("td", { class: "n" }, this.value(i, index))),
    ));
    const table = element(
      "table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows),
    );
    const attributes = { tabindex: "0", role: "group", "aria-label": this.title };
    this.table.querySelector(".scroll")?.remove();
    this.table.append(element("div", { class: "scroll tall", ...attributes }, table));
  }
}
