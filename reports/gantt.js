// Draws the simulated, or the measured, step of a chosen plan: a row for each rank's computation, messages by axis, and copies.
// Needs table.js before it (view, remember). The numbers are the run file's `timeline` (reports/schema.md).
const timelines = JSON.parse(document.getElementById("timelines").textContent);
const plan = document.getElementById("gantt-plan");

function shape(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function hint(element, text) {
  element.append(shape("title", {}, text));
  return element;
}

// 3.21 ms: three digits.
function time(seconds) {
  const [scale, unit] = seconds >= 1 ? [1, "s"] : seconds >= 1e-3 ? [1e3, "ms"] : [1e6, "µs"];
  return `${Number((seconds * scale).toPrecision(3))} ${unit}`;
}

const passClass = {"forward": "forward", "backward": "backward", "input gradients": "backward",
                   "weight gradients": "weight", "update": "update"};

// One stream's bars at height `top`; times are in 10000ths of a step, `width` pixels long. Over bars of a microbatch
// that follow one another, one number.
function bars(stream, timeline, left, top, height, width) {
  const [, name, numbers] = stream, group = shape("g", {}), texts = [], widthOf = number => 7 * String(number).length;
  let last = {};
  for (let i = 0; i < numbers.length; i += 5) {
    const [from, length, pass, chunk, microbatch] = numbers.slice(i, i + 5);
    const kind = name === "compute" ? passClass[timeline.passes[pass]] || "other" : name === "copies" ? "copies" : "message";
    const x = left + from / 10000 * width, long = Math.max(length / 10000 * width, 0.6);
    const what = name === "compute" ? timeline.passes[pass] || "clearing buffers" : name === "copies" ? "copy" : `${timeline.measured ? "waiting for a message" : "message"} on ${name}`;
    group.append(hint(shape("rect", {class: kind, x: x.toFixed(2), y: top, width: long.toFixed(2), height}),
        what + (microbatch >= 0 ? `, microbatch ${microbatch}` : "") + (chunk >= 0 ? `, chunk ${chunk}` : "") +
        `: ${time(length / 10000 * timeline.seconds)} from ${time((timeline.from || 0) + from / 10000 * timeline.seconds)} on`));
    if (name !== "compute") continue;
    if (last.pass !== pass || last.chunk !== chunk || last.microbatch !== microbatch || x - last.end > widthOf(microbatch))
      texts.push(last = {pass, chunk, microbatch, kind, x});
    last.end = x + long;
  }
  for (const {kind, microbatch, x, end} of texts) {
    const middle = ((x + end) / 2).toFixed(2), wide = widthOf(microbatch);
    if (microbatch < 0 || end - x <= wide + 3) continue;
    group.append(shape("rect", {class: "under " + kind, x: middle - wide / 2, y: top + 4, width: wide, height: height - 8}));
    group.append(shape("text", {class: "on-" + kind, x: middle, y: top + height / 2 + 3.5}, microbatch));
  }
  return group;
}

function ticks(svg, timeline, left, width, bottom) {
  const raw = timeline.seconds / 6, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(digit => digit * power).find(candidate => candidate >= raw);
  const first = timeline.from || 0;  // of a part of a step
  for (let at = Math.ceil(first / step) * step; at <= first + timeline.seconds * 1.0001; at += step) {
    const x = left + (at - first) / timeline.seconds * width;
    svg.append(shape("line", {class: "tick", x1: x, x2: x, y1: 4, y2: bottom}));
    svg.append(shape("text", {class: "axis", x, y: bottom + 15}, time(at)));
  }
}

function draw() {
  const timeline = timelines[plan.value], left = 108, width = 1000;
  const svg = shape("svg", {role: "img", "aria-label": `${timeline.measured ? "measured" : "simulated"} step of ${plan.selectedOptions[0].textContent}`});
  let top = 8, rank = timeline.streams[0][0];
  const rows = timeline.streams.map(stream => {
    const height = stream[1] === "compute" ? 20 : 9;
    if (stream[0] !== rank) top += 10;
    rank = stream[0];
    const row = {stream, top, height};
    top += height + 3;
    return row;
  });
  svg.setAttribute("viewBox", `0 0 ${left + width + 24} ${top + 26}`);
  ticks(svg, timeline, left, width, top);
  for (const {stream, top: y, height} of rows) {
    const name = stream[1] === "compute" ? `rank ${stream[0]}` : stream[1];
    svg.append(shape("text", {class: stream[1] === "compute" ? "row" : "row soft-row", x: left - 8, y: y + height / 2 + 3.5}, name));
    svg.append(bars(stream, timeline, left, y, height, width));
  }
  document.getElementById("gantt").replaceChildren(svg);
  const parts = Object.entries(timeline.parts).filter(([, part]) => part >= 0.0005)
                      .map(([name, part]) => `${name} ${(100 * part).toFixed(part < 0.1 ? 1 : 0)} %`);
  document.getElementById("gantt-parts").textContent =
      `${plan.selectedOptions[0].textContent}: a step of ${time(timeline.step || timeline.seconds)}; of a rank's time: ${parts.join(", ")}.`;
  view.set("gantt", plan.value);
  remember();
}

plan.addEventListener("change", draw);
document.querySelectorAll("[data-gantt]").forEach(button => button.addEventListener("click", () => {
  plan.value = button.dataset.gantt;
  draw();
  document.getElementById("gantt-heading").scrollIntoView();
}));
if (timelines[view.get("gantt")]) plan.value = view.get("gantt");
draw();
