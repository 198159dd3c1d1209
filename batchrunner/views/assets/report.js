"use strict";
// Draws what the page has places for. What is essential stands in the page itself, and needs none of this.

(async () => {
  document.documentElement.dataset.scripted = "";
  kit.copyButtons();
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details.group")) details.open = true;
  });
  const { map, time, histogram } = await kit.data();
  const canvas = document.getElementById("map");
  if (canvas) charts.map = new ShardMap(canvas, document.getElementById("map-details"), map, time);
  if (time) {
    charts.rate(time);
    charts.lanes(time);
  }
  if (histogram) charts.histogram(histogram);
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
})();
