// Sorts and filters the table of plans and answers which plan to use, from the table's own numbers.
// The address holds the view, so that it can be shared: #filter=tp2&show=timed&sort=peak&down&fit=2097152&ranks=2
"use strict";
const table = document.getElementById("plans");
const rows = [...table.tBodies[0].rows];
const heads = [...table.tHead.rows[0].cells];
const filter = document.getElementById("filter"), show = document.getElementById("show");
const fit = document.getElementById("fit"), unit = document.getElementById("unit"), ranks = document.getElementById("ranks");
const view = new URLSearchParams(location.hash.slice(1));

function value(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
}

// Rows without a value, such as the speed of a plan that was not timed, come last whichever way the others go.
function compare(a, b, down) {
  if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
  const order = typeof a === "string" ? a.localeCompare(b, "en", {numeric: true}) : a - b;
  return down ? -order : order;
}

function sortBy(key, down) {
  const column = heads.findIndex(head => head.dataset.key === key);
  if (column < 0) return;
  rows.sort((a, b) => compare(value(a, column), value(b, column), down));
  table.tBodies[0].append(...rows);
  heads.forEach(head => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
  view.set("sort", key);
  if (down) view.set("down", ""); else view.delete("down");
  remember();
}

// Every word must occur; a word with a minus before it must not.
function matches(row, words) {
  const text = row.textContent.toLowerCase() + " " + row.dataset.plan;
  return words.every(word => word.length > 1 && word[0] === "-" ? !text.includes(word.slice(1)) : text.includes(word));
}

function applyFilter() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    const wanted = show.value === "all" || row.dataset.tags.split(" ").includes(show.value);
    row.hidden = !(wanted && matches(row, words));
    shown += !row.hidden;
  }
  document.getElementById("count").textContent = `${shown} of ${rows.length} plans`;
  remember();
}

function bytesText(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  while (bytes >= 1024 && power < 4) { bytes /= 1024; power++; }
  return `${Number(bytes.toPrecision(bytes >= 100 ? 4 : 3)).toLocaleString("en")} ${units[power]}`;
}

function bold(text) {
  const element = document.createElement("b");
  element.textContent = text;
  return element;
}

const number = value => Math.round(Number(value)).toLocaleString("en");
const percent = part => `${Math.round(100 * part)} %`;
const peak = row => Number(row.dataset.peak), speed = row => Number(row.dataset.throughput);
const size = row => bytesText(peak(row));
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// Why this plan: what it gives for what it takes, what beats it and does not fit, what comes next.
function reasons(best, timed, possible, passed, most) {
  const said = [], solo = rows.find(row => row.dataset.plan === document.getElementById("choose").dataset.solo);
  said.push(timed.length === 1 ? "It is the only timed plan that fits." :
            `It is the fastest of ${timed.length} timed plans that fit` +
            (timed.length > 1 && speed(timed[1]) > 0.95 * speed(best) ? ", though hardly faster than the next." : "."));
  if (solo && solo !== best && solo.dataset.throughput)
    said.push(`Against ${solo.dataset.label} (one device): ${percent(peak(best) / peak(solo))} of the memory of a rank, ` +
              `${percent(speed(best) / speed(solo))} of the speed.`);
  const faster = passed.filter(row => row.dataset.throughput && speed(row) > speed(best) &&
                                      (!most || Number(row.dataset.ranks) <= most)).sort((a, b) => peak(a) - peak(b));
  if (faster.length)
    said.push(`Faster, but too large: ${faster[0].dataset.label} needs ${size(faster[0])} for ` +
              `${percent(speed(faster[0]) / speed(best) - 1)} more speed.`);
  if (timed.length > 1)
    said.push("Next: " + timed.slice(1, 4).map(row =>
        `${row.dataset.label} (${percent(speed(row) / speed(best))} of its speed, ${size(row)})`).join("; ") + ".");
  const checked = possible.length - timed.length;
  if (checked) said.push(`${plural(checked, "more plan")} would fit, but ${checked > 1 ? "were" : "was"} only checked: ` +
                         "this machine has no core for every one of their threads.");
  return said;
}

// By simulation alone, with a device for each rank.
function simulatedBest(possible) {
  const known = possible.filter(row => row.dataset.simulated);
  if (!known.length) return [];
  const best = known.reduce((a, b) => Number(b.dataset.simulated) > Number(a.dataset.simulated) ? b : a);
  return [`With a device for every rank, a simulation at nominal rates (not measured) would choose ${best.dataset.label}: ` +
          `${plural(Number(best.dataset.ranks), "rank")}, ${number(best.dataset.simulated)} tokens/s, ${size(best)}.`];
}

function answer() {
  const limit = Number(fit.value) * Number(unit.value), most = Number(ranks.value);
  const say = (...parts) => document.getElementById("answer").replaceChildren(...parts);
  const because = list => document.getElementById("reasons").replaceChildren(...list.map(text => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
  because([]);
  if (!(limit > 0)) return say("Type a limit of memory per rank.");
  const where = `${bytesText(limit)} per rank` + (most ? ` and ${plural(most, "rank")} at most` : "");
  const passed = rows.filter(row => row.dataset.tags.split(" ").includes("ok"));
  const possible = passed.filter(row => peak(row) <= limit && (!most || Number(row.dataset.ranks) <= most));
  const timed = possible.filter(row => row.dataset.throughput).sort((a, b) => speed(b) - speed(a));
  const smallest = [...passed].sort((a, b) => peak(a) - peak(b))[0];
  if (timed.length) {
    say("With ", where, ", use ", bold(timed[0].dataset.label),
        `: ${number(speed(timed[0]))} tokens/s at a peak of ${size(timed[0])}.`);
    because([...reasons(timed[0], timed, possible, passed, most), ...simulatedBest(possible)]);
  } else if (possible.length) {
    const least = possible.sort((a, b) => peak(a) - peak(b))[0];
    say("With ", where, ", no timed plan fits. ", bold(least.dataset.label),
        ` fits at a peak of ${size(least)}; it is right, but its speed was not measured here.`);
    because(simulatedBest(possible));
  } else if (smallest) {
    say("With ", where, ", no plan of this run fits. ", bold(smallest.dataset.label),
        ` needs the least: ${size(smallest)} on ${plural(Number(smallest.dataset.ranks), "rank")}.`);
  } else {
    say("No plan of this run passed its gates, so none can be recommended.");
  }
  view.set("fit", limit);
  if (most) view.set("ranks", most); else view.delete("ranks");
  remember();
}

function setLimit(bytes) {
  fit.value = Number((bytes / Number(unit.value)).toPrecision(12));
  answer();
}

function remember() {
  for (const [key, field, initial] of [["filter", filter, ""], ["show", show, "all"]])
    if (field.value === initial) view.delete(key); else view.set(key, field.value);
  history.replaceState(null, "", "#" + view);
}

heads.forEach(head => head.firstElementChild.addEventListener("click", () => {
  const first = head.classList.contains("number") && head.dataset.small === undefined;  // big numbers first
  const now = head.getAttribute("aria-sort");
  sortBy(head.dataset.key, now ? now === "ascending" : first);
}));
filter.addEventListener("input", applyFilter);
show.addEventListener("change", applyFilter);
for (const field of [fit, unit, ranks]) field.addEventListener("input", answer);
document.querySelectorAll("[data-limit]").forEach(button =>
    button.addEventListener("click", () => setLimit(Number(button.dataset.limit))));
document.querySelectorAll("form").forEach(form => form.addEventListener("submit", event => event.preventDefault()));

const start = {sort: view.get("sort"), down: view.has("down"), fit: Number(view.get("fit")) || Number(fit.dataset.start)};
filter.value = view.get("filter") || "";
show.value = view.get("show") || "all";
ranks.value = view.get("ranks") || "";
if (start.sort) sortBy(start.sort, start.down);
applyFilter();
setLimit(start.fit);
