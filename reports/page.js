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

function answer() {
  const limit = Number(fit.value) * Number(unit.value), most = Number(ranks.value);
  const say = (...parts) => document.getElementById("answer").replaceChildren(...parts);
  const next = document.getElementById("next");
  next.textContent = "";
  if (!(limit > 0)) return say("Type a limit of memory per rank.");
  const where = `${bytesText(limit)} per rank` + (most ? ` and ${most} rank${most > 1 ? "s" : ""} at most` : "");
  const possible = rows.filter(row => row.dataset.tags.includes("ok") && Number(row.dataset.peak) <= limit &&
                                      (!most || Number(row.dataset.ranks) <= most));
  const timed = possible.filter(row => row.dataset.throughput)
                        .sort((a, b) => b.dataset.throughput - a.dataset.throughput);
  const smallest = [...rows].filter(row => row.dataset.tags.includes("ok"))
                            .sort((a, b) => a.dataset.peak - b.dataset.peak)[0];
  if (timed.length) {
    const best = timed[0], speed = Number(best.dataset.throughput);
    say("With ", where, ", use ", bold(best.dataset.label),
        `: ${Math.round(speed).toLocaleString("en")} tokens/s at a peak of ${bytesText(Number(best.dataset.peak))}.`);
    const others = timed.slice(1, 4).map(row =>
        `${row.dataset.label} (${Math.round(100 * row.dataset.throughput / speed)} % of its speed, ` +
        `${bytesText(Number(row.dataset.peak))})`);
    const checked = possible.length - timed.length;
    next.textContent = (others.length ? `Next: ${others.join("; ")}. ` : "") +
        `${timed.length} timed plan${timed.length > 1 ? "s fit" : " fits"}` +
        (checked ? `; ${checked} more fit${checked > 1 ? "" : "s"} but ${checked > 1 ? "were" : "was"} only checked.` : ".");
  } else if (possible.length) {
    const least = possible.sort((a, b) => a.dataset.peak - b.dataset.peak)[0];
    say("With ", where, ", no timed plan fits. ", bold(least.dataset.label),
        ` fits at a peak of ${bytesText(Number(least.dataset.peak))}; it is right, but its speed was not measured here.`);
  } else if (smallest) {
    say("With ", where, ", no plan of this run fits. ", bold(smallest.dataset.label),
        ` needs the least: ${bytesText(Number(smallest.dataset.peak))} on ${smallest.dataset.ranks} rank` +
        `${smallest.dataset.ranks === "1" ? "" : "s"}.`);
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
