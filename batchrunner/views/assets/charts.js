"use strict";
// The charts over time, and the histogram, drawn by uPlot. Each is a function of its data and its place.

const charts = {
  drawn: {},

  // Draws a chart into the element, again at another width or in another scheme of colours.
  place(id, height, options) {
    const element = document.getElementById(id);
    if (!element) return;
    const figure = element.closest("figure");
    const say = kit.readout(figure);
    let plot = null;
    const draw = () => {
      if (plot) plot.destroy();
      const { data, ...rest } = options(say);
      const size = { width: element.clientWidth, height };
      const common = { legend: { show: false }, pxAlign: 0, padding: [10, 36, 0, 0] };
      plot = new uPlot({ ...size, ...common, ...rest }, data, element);
      charts.drawn[id] = plot;
    };
    draw();
    let width = element.clientWidth;
    new ResizeObserver(() => {
      if (element.clientWidth === width) return;
      width = element.clientWidth;
      plot.setSize({ width, height });
    }).observe(element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  },

  axis(more) {
    const line = { stroke: kit.color("grid"), width: 1 };
    return {
      stroke: kit.color("soft"), grid: line, ticks: { ...line, size: 4 }, gap: 4,
      font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif", ...more,
    };
  },

  // The axis of time: round times of the clock in each span; the gaps between are hatched.
  timeAxis(time) {
    const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
    const times = new Map();
    return charts.axis({
      size: 28,
      splits: (plot) => {
        const room = Math.max(2, Math.floor(plot.bbox.width / devicePixelRatio / 76));
        const step = steps.find((one) => time.length / one <= room) ?? 86400 * Math.ceil(time.length / room / 86400);
        times.clear();
        let last = -Infinity;
        for (const [start, stop, at] of time.spans) {
          for (let n = Math.ceil(start / step); n * step <= stop + 1e-6; n += 1) {
            const t = Math.round(n * step * 1000) / 1000;
            const x = at + t - start;
            if (x - last < time.length / room / 1.2) continue;
            last = x;
            times.set(x, step < 1 ? new Date(Math.round(t * 1000)).toISOString().slice(11, 21) : kit.clock(t));
          }
        }
        return [...times.keys()];
      },
      values: (_, splits) => splits.map((x) => times.get(x) ?? ""),
    });
  },

  hatchGaps(plot, time) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    time.spans.slice(1).forEach(([, , at], n) => {
      const [start, stop, from] = time.spans[n];
      charts.hatch(plot, from + stop - start, at);
    });
    ctx.restore();
  },

  hatch(plot, from, to) {
    const { ctx, bbox } = plot;
    const left = plot.valToPos(from, "x", true);
    const width = Math.max(plot.valToPos(to, "x", true) - left, 2 * devicePixelRatio);
    ctx.save();
    ctx.fillStyle = kit.color("gap");
    ctx.fillRect(left, bbox.top, width, bbox.height);
    ctx.beginPath();
    ctx.rect(left, bbox.top, width, bbox.height);
    ctx.clip();
    ctx.strokeStyle = kit.color("pending");
    ctx.lineWidth = devicePixelRatio;
    ctx.beginPath();
    for (let x = left - bbox.height; x < left + width; x += 7 * devicePixelRatio) {
      ctx.moveTo(x, bbox.top + bbox.height);
      ctx.lineTo(x + bbox.height, bbox.top);
    }
    ctx.globalAlpha = 0.6;
    ctx.stroke();
    ctx.restore();
  },

  // A thin line where each session begins, with its number.
  markSessions(plot, time) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.fillStyle = ctx.strokeStyle = kit.color("soft");
    ctx.lineWidth = devicePixelRatio;
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    ctx.textAlign = "left";
    ctx.textBaseline = "top";
    let free = -Infinity;
    for (const [number, at] of time.sessions) {
      const x = Math.round(plot.valToPos(at, "x", true)) + 0.5;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      const label = `session ${number}`;
      if (x < free || x + ctx.measureText(label).width > bbox.left + bbox.width) continue;
      ctx.fillText(label, x + 4 * devicePixelRatio, bbox.top);
      free = x + ctx.measureText(label).width + 12 * devicePixelRatio;
    }
    ctx.restore();
  },

  rate(time) {
    charts.place("rate", 210, (say) => ({
      data: [time.x, time.y],
      scales: { x: { time: false, range: () => [0, time.length] }, y: { range: (_, low, high) => [0, (high || 1) * 1.18] } },
      axes: [charts.timeAxis(time), charts.axis({ size: 58, values: (_, all) => all.map(kit.number) })],
      series: [{}, {
        stroke: kit.color("now"), width: 1.5, fill: kit.color("area"), points: { show: false },
        paths: uPlot.paths.stepped({ align: 1 }), spanGaps: false,
      }],
      cursor: { y: false, drag: { setScale: false, x: false } },
      hooks: {
        drawClear: [(plot) => charts.hatchGaps(plot, time)],
        draw: [(plot) => charts.markSessions(plot, time)],
        setCursor: [(plot) => {
          const { idx } = plot.cursor;
          const at = idx == null ? null : kit.timeAt(time.spans, time.x[idx]);
          say(at === null || time.y[idx] === null ? "" : `${kit.clock(at, true)} UTC: ${kit.number(time.y[idx])} rows a second`);
        }],
      },
    }));
  },

  lanes(time) {
    const { workers, blocks } = time;
    const height = Math.min(34, Math.max(14, 420 / workers.length));
    charts.place("lanes", workers.length * height + 44, (say) => ({
      data: [[0, time.length], [null, null]],
      scales: { x: { time: false, range: () => [0, time.length] }, y: { range: () => [0, workers.length], dir: -1 } },
      axes: [charts.timeAxis(time), charts.axis({
        size: (plot, values) => charts.nameWidth(values), grid: { show: false }, ticks: { show: false },
        splits: () => workers.map((_, n) => n + 0.5),
        values: () => workers.map((name) => charts.shortened(name)),
      })],
      series: [{}, { show: true, points: { show: false } }],
      cursor: { y: false, drag: { setScale: false, x: false } },
      hooks: {
        drawClear: [(plot) => charts.hatchGaps(plot, time)],
        draw: [(plot) => charts.drawBlocks(plot, time)],
        setCursor: [(plot) => say(charts.blockUnder(plot, time))],
      },
    }));
  },

  shortened(name) {
    const most = innerWidth < 640 ? 12 : 26;
    return name.length > most ? `…${name.slice(-most)}` : name;
  },

  nameWidth(values) {
    return 14 + 6.6 * Math.max(6, ...(values ?? []).map((name) => name.length));
  },

  drawBlocks(plot, { blocks, failures }) {
    const { ctx } = plot;
    const colors = [kit.color("before"), kit.color("now")];
    const high = plot.valToPos(1, "y", true) - plot.valToPos(0, "y", true);
    const top = (lane) => plot.valToPos(lane, "y", true) + high * 0.12;
    ctx.save();
    blocks.lane.forEach((lane, n) => {
      const left = plot.valToPos(blocks.start[n], "x", true);
      const right = plot.valToPos(blocks.stop[n], "x", true);
      const gap = right - left > 4 * devicePixelRatio ? devicePixelRatio : 0;
      ctx.fillStyle = colors[blocks.now[n]];
      ctx.clearRect(left, top(lane), gap, high * 0.76);
      ctx.fillRect(left + gap, top(lane), Math.max(right - left - gap, devicePixelRatio), high * 0.76);
    });
    ctx.fillStyle = kit.color("failed");
    for (const [lane, at] of failures) {
      ctx.fillRect(plot.valToPos(at, "x", true) - 3 * devicePixelRatio, top(lane) + high * 0.52, 3 * devicePixelRatio, high * 0.24);
    }
    ctx.restore();
  },

  blockUnder(plot, time) {
    const { left, top } = plot.cursor;
    if (left < 0) return "";
    const x = plot.posToVal(left, "x");
    const lane = Math.floor(plot.posToVal(top, "y"));
    const { blocks } = time;
    const near = 3 * time.length / plot.bbox.width * devicePixelRatio;
    const n = blocks.lane.findIndex((one, at) => one === lane && blocks.start[at] - near <= x && x <= blocks.stop[at] + near);
    if (n < 0) return time.workers[lane] ?? "";
    const began = kit.timeAt(time.spans, blocks.start[n]);
    const what = blocks.shards[n] > 1 ? `${kit.number(blocks.shards[n])} shards from shard ${blocks.shard[n]} on` : `shard ${blocks.shard[n]}`;
    const failed = blocks.failed[n] ? `, ${kit.number(blocks.failed[n])} rows failed` : "";
    const at = began === null ? "" : ` at ${kit.clock(began)}`;
    return `${time.workers[lane]}: ${what}${at}, ${kit.seconds(blocks.stop[n] - blocks.start[n])}${failed}`;
  },

  histogram({ edges, counts }) {
    const last = counts.length;
    charts.place("histogram", 190, (say) => ({
      data: [counts.map((_, n) => n + 0.5), counts],
      scales: { x: { time: false, range: () => [0, last] }, y: { range: (_, low, high) => [0, high * 1.1 || 1] } },
      axes: [
        charts.axis({
          size: 28, grid: { show: false },
          splits: (plot) => {
            const every = Math.ceil(last / Math.max(2, Math.floor(plot.bbox.width / devicePixelRatio / 64)));
            return edges.map((_, n) => n).filter((n) => n % every === 0);
          },
          values: (_, splits) => splits.map((n) => (edges[n] === undefined ? "" : `${Number(edges[n].toPrecision(3))} s`)),
        }),
        charts.axis({ size: 58, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000], values: (_, all) => all.map(kit.number) }),
      ],
      series: [{}, {
        stroke: kit.color("now"), fill: kit.color("now"), width: 0, points: { show: false },
        paths: uPlot.paths.bars({ size: [0.92, Infinity], align: 0 }),
      }],
      cursor: { y: false, drag: { setScale: false, x: false }, points: { show: false } },
      hooks: {
        setCursor: [(plot) => {
          const n = plot.cursor.idx;
          say(n == null ? "" : `${kit.seconds(edges[n])} to ${kit.seconds(edges[n + 1])}: ${kit.number(counts[n])} shards`);
        }],
      },
    }));
  },
};
