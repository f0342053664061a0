// Answers which plan to use, from the table's own numbers. Needs table.js before it. The address holds the question
// too: &fit=2097152&ranks=2
const fit = document.getElementById("fit"), unit = document.getElementById("unit"), ranks = document.getElementById("ranks");
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
    said.push(`Against ${solo.dataset.label}${solo.dataset.ranks === "1" ? " (one device)" : ""}: ` +
              `${percent(peak(best) / peak(solo))} of the memory of a rank, ${percent(speed(best) / speed(solo))} of the speed.`);
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
  const use = row => showLine(`--plan "${row.dataset.plan}"`);
  because([]);
  showLine("");
  if (!(limit > 0)) return say("Type a limit of memory per rank.");
  const where = `${bytesText(limit)} per rank` + (most ? ` and ${plural(most, "rank")} at most` : "");
  const passed = rows.filter(row => row.dataset.tags.split(" ").includes("ok"));
  const possible = passed.filter(row => peak(row) <= limit && (!most || Number(row.dataset.ranks) <= most));
  const timed = possible.filter(row => row.dataset.throughput).sort((a, b) => speed(b) - speed(a));
  const smallest = [...passed].sort((a, b) => peak(a) - peak(b))[0];
  if (timed.length) {
    say("With ", where, ", use ", bold(timed[0].dataset.label),
        `: ${number(speed(timed[0]))} tokens/s at a peak of ${size(timed[0])}.`);
    use(timed[0]);
    because([...reasons(timed[0], timed, possible, passed, most), ...simulatedBest(possible)]);
  } else if (possible.length) {
    const least = possible.sort((a, b) => peak(a) - peak(b))[0];
    say("With ", where, ", no timed plan fits. ", bold(least.dataset.label),
        ` fits at a peak of ${size(least)}; it is right, but its speed was not measured here.`);
    use(least);
    because(simulatedBest(possible));
  } else if (smallest) {
    say("With ", where, ", no plan of this run fits. ", bold(smallest.dataset.label),
        ` needs the least: ${size(smallest)} on ${plural(Number(smallest.dataset.ranks), "rank")}.`);
    use(smallest);
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

for (const field of [fit, unit, ranks]) field.addEventListener("input", answer);
document.querySelectorAll("[data-limit]").forEach(button =>
    button.addEventListener("click", () => setLimit(Number(button.dataset.limit))));

ranks.value = view.get("ranks") || "";
setLimit(Number(view.get("fit")) || Number(fit.dataset.start));
