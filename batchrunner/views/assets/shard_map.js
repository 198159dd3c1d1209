"use strict";
// The map of shards: one canvas, walked by pointer and by arrow keys; what is under it is said below it.

class ShardMap {
  static names = { "#": "now", "=": "before", "~": "at-work", ".": "pending", x: "failed", "!": "damaged" };

  constructor(canvas, details, map, time) {
    Object.assign(this, { canvas, details, map, time, count: map.states.length, chosen: -1, hovered: -1 });
    canvas.hidden = false;
    this.sources = map.sources;
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    canvas.addEventListener("pointermove", (event) => this.hover(this.cellAt(event)));
    canvas.addEventListener("pointerleave", () => this.hover(-1));
    canvas.addEventListener("pointerdown", (event) => this.choose(this.cellAt(event)));
    canvas.addEventListener("keydown", (event) => this.walk(event));
    canvas.addEventListener("focus", () => { if (this.chosen < 0) this.choose(0); });
    for (const sign of document.querySelectorAll(".legend button")) this.makeJump(sign);
    this.draw();
    this.say();
  }

  // A press on a sign of the legend goes to the next cell with that sign.
  makeJump(sign) {
    const state = sign.dataset.state;
    if (!this.map.states.includes(state)) return;
    sign.disabled = false;
    sign.title = "Go to the next one";
    sign.addEventListener("click", () => {
      const next = this.map.states.indexOf(state, this.chosen + 1);
      this.choose(next < 0 ? this.map.states.indexOf(state) : next);
    });
  }

  walk(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns, PageDown: 10 * this.columns, PageUp: -10 * this.columns };
    const ends = { Home: 0, End: this.count - 1 };
    if (event.key in ends) this.choose(ends[event.key]);
    else if (event.key in steps) this.step(steps[event.key]);
    else return;
    event.preventDefault();
  }

  step(by) {
    const to = this.chosen + by;
    if (to >= 0 && to < this.count) this.choose(to);
  }

  choose(cell) {
    if (cell < 0 || cell >= this.count) return;
    this.chosen = cell;
    this.hovered = -1;
    this.draw();
    this.say();
  }

  hover(cell) {
    if (cell === this.hovered) return;
    this.hovered = cell;
    this.say();
  }

  cellAt(event) {
    const column = Math.floor(event.offsetX / this.size);
    const cell = Math.floor(event.offsetY / this.size) * this.columns + column;
    return column < this.columns && cell < this.count ? cell : -1;
  }

  layOut() {
    const width = Math.max(60, this.canvas.parentElement.clientWidth - 2 * parseFloat(getComputedStyle(this.canvas.parentElement).paddingLeft));
    const ideal = Math.floor(Math.sqrt((width * 460) / Math.max(this.count, 1)));
    this.size = Math.min(22, Math.max(width < 500 ? 5 : 6, ideal));
    this.columns = Math.max(1, Math.floor(width / this.size));
    const rows = Math.ceil(this.count / this.columns);
    const scale = devicePixelRatio;
    this.canvas.style.height = `${rows * this.size}px`;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(rows * this.size * scale);
    return scale;
  }

  draw() {
    const scale = this.layOut();
    const ctx = this.canvas.getContext("2d");
    ctx.setTransform(scale, 0, 0, scale, 0, 0);
    const gap = this.size > 9 ? 2 : 1;
    const side = this.size - gap;
    for (const [state, name] of Object.entries(ShardMap.names)) {
      const cells = [];
      for (let n = this.map.states.indexOf(state); n >= 0; n = this.map.states.indexOf(state, n + 1)) cells.push(n);
      if (cells.length) this.drawState(ctx, cells, { state, side, color: kit.color(name), on: kit.color(`on-${name}`) });
    }
    if (this.chosen >= 0) this.drawChosen(ctx, side);
  }

  corner(cell) {
    return [(cell % this.columns) * this.size, Math.floor(cell / this.columns) * this.size];
  }

  drawState(ctx, cells, { state, side, color, on }) {
    ctx.fillStyle = ctx.strokeStyle = color;
    ctx.lineWidth = 1;
    for (const cell of cells) {
      const [x, y] = this.corner(cell);
      if (state === ".") ctx.strokeRect(x + 0.5, y + 0.5, side - 1, side - 1);
      else ctx.fillRect(x, y, side, side);
    }
    const lines = { x: [[0.2, 0.2, 0.8, 0.8], [0.8, 0.2, 0.2, 0.8]], "=": [[0.1, 0.9, 0.9, 0.1]], "~": [[0.15, 0.5, 0.85, 0.5]], "!": [[0.5, 0.12, 0.5, 0.6], [0.5, 0.75, 0.5, 0.88]] }[state];
    if (!lines || (state === "=" && side < 8)) return;
    ctx.strokeStyle = on;
    ctx.lineWidth = Math.max(1, side / 9);
    ctx.beginPath();
    for (const cell of cells) {
      const [x, y] = this.corner(cell);
      for (const [a, b, c, d] of lines) {
        ctx.moveTo(x + a * side, y + b * side);
        ctx.lineTo(x + c * side, y + d * side);
      }
    }
    ctx.stroke();
  }

  drawChosen(ctx, side) {
    const [x, y] = this.corner(this.chosen);
    ctx.strokeStyle = kit.color("card");
    ctx.lineWidth = 4;
    ctx.strokeRect(x, y, side, side);
    ctx.strokeStyle = kit.color("ink");
    ctx.lineWidth = 2;
    ctx.strokeRect(x, y, side, side);
  }

  say() {
    const cell = this.hovered >= 0 ? this.hovered : this.chosen;
    this.details.textContent = cell < 0 ? "Point at a cell, or press Tab and use the arrow keys." : this.words(cell);
  }

  words(cell) {
    const { map } = this;
    const count = map.count[cell] ?? 1;
    const name = count > 1 ? `Shards ${map.first[cell]} and the next ${count - 1}` : `Shard ${map.first[cell]}`;
    const words = [`${name}: ${map.words[map.states[cell]]}`];
    if (map.rows_in[cell] || map.session[cell]) {
      const failed = map.failed[cell] ? `, ${kit.number(map.failed[cell])} failed` : "";
      words.push(`${kit.number(map.rows_in[cell])} rows in, ${kit.number(map.rows_out[cell])} out${failed}`);
    }
    if (map.session[cell]) words.push(`session ${map.session[cell]}, ${kit.seconds(map.seconds[cell])}${this.when(cell)}`);
    words.push(this.slice(cell));
    if (map.why[cell]) words.push(map.why[cell]);
    return words.join(" · ");
  }

  when(cell) {
    const at = this.map.began[cell];
    const time = at === null || !this.time ? null : kit.timeAt(this.time.spans, at);
    return time === null ? "" : ` from ${kit.clock(time, true)} UTC`;
  }

  slice(cell) {
    const { map } = this;
    const source = map.sources[map.source[cell]];
    const kind = map.slicing[cell];
    if (kind === "file") return source;
    const start = map.start[cell];
    if (kind === "dead_letters") return `${source}, dead letters of shard ${start}`;
    const stop = start + map.length[cell];
    return `${source}, ${kind.replace("_", " ")} ${kit.number(start)}–${kit.number(stop)}`;
  }
}
