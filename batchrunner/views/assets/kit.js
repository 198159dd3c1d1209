"use strict";
// What all charts share: the packed data, the colours of the present scheme, words for numbers and times.

const kit = {
  async data() {
    const text = document.getElementById("data").textContent;
    const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).json();
  },

  color(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  },

  number(value) {
    return value >= 100 || Number.isInteger(value)
      ? Math.round(value).toLocaleString("en-US")
      : value.toLocaleString("en-US", { maximumSignificantDigits: 3 });
  },

  seconds(value) {
    if (value < 1) return `${Number(value.toPrecision(2))} s`;
    if (value < 60) return `${value.toFixed(1)} s`;
    const whole = Math.round(value);
    const two = (n) => String(n).padStart(2, "0");
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
    if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
    return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
  },

  clock(seconds, withDate) {
    const text = new Date(seconds * 1000).toISOString();
    return withDate ? `${text.slice(0, 10)} ${text.slice(11, 19)}` : text.slice(11, 19);
  },

  // The time at a place on an axis on which long gaps are short; null within a gap.
  timeAt(spans, at) {
    const span = spans.findLast(([, , begins]) => begins <= at + 1e-9);
    if (!span) return null;
    const time = span[0] + at - span[2];
    return time <= span[1] + 1e-3 ? time : null;
  },

  // An element below a chart that says what is under the pointer.
  readout(figure) {
    const line = document.createElement("p");
    line.className = "now-at";
    figure.querySelector("figcaption").before(line);
    return (text) => { line.textContent = text; };
  },

  copyButtons() {
    for (const button of document.querySelectorAll("button.copy")) {
      const code = button.parentElement.querySelector("code");
      button.hidden = false;
      button.addEventListener("click", async () => {
        button.textContent = (await kit.copy(code)) ? "Copied" : "Selected";
        setTimeout(() => { button.textContent = "Copy"; }, 1500);
      });
    }
  },

  // A page from a disk may have no clipboard: then the text is selected, for the keyboard to copy.
  async copy(element) {
    try {
      await navigator.clipboard.writeText(element.textContent);
      return true;
    } catch {
      getSelection().selectAllChildren(element);
      return document.execCommand("copy");
    }
  },
};
