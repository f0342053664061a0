// Sorts and filters the table of plans. The address holds the view, so that it can be shared:
// #filter=tp2&show=timed&sort=peak&down
"use strict";
const table = document.getElementById("plans");
const rows = [...table.tBodies[0].rows];
const heads = [...table.tHead.rows[0].cells];
const filter = document.getElementById("filter"), show = document.getElementById("show");
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
  const text = `${row.textContent} ${row.dataset.plan}`.toLowerCase();
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

// What a command takes instead of the short name that pictures have room for; nothing to hide it.
function showLine(text) {
  const line = document.getElementById("line");
  line.hidden = !text;
  line.querySelector("code").textContent = text;
}

const number = value => Math.round(Number(value)).toLocaleString("en");

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
document.querySelectorAll("form").forEach(form => form.addEventListener("submit", event => event.preventDefault()));

filter.value = view.get("filter") || "";
show.value = view.get("show") || "all";
if (view.get("sort")) sortBy(view.get("sort"), view.has("down"));
applyFilter();
