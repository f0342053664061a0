// Answers which plan to use where less memory is free than a device has. Needs table.js before it. The plans are those
// that no other is as fast as and smaller than, the fastest first: [label, tokens/s, bytes on the device, beside it, line].
// The address holds the question too: &device=42949672960&host=0
const front = JSON.parse(document.getElementById("front").textContent);
const limits = {device: document.getElementById("device-limit"), host: document.getElementById("host-limit")};
const again = document.getElementById("line").dataset.again, GiB = 2 ** 30;

function answer() {
  const [device, host] = [limits.device, limits.host].map(field => field.value === "" ? Infinity : Number(field.value) * GiB);
  const best = front.find(plan => plan[2] <= device && plan[3] <= host);
  const say = (...parts) => document.getElementById("answer").replaceChildren(...parts);
  if (best) {
    const part = best[1] / front[0][1];
    say("Use ", bold(best[0]), `: ${number(best[1])} tokens/s` + (part < 0.9995 ? `, ${(100 * part).toFixed(1)} % of the best` : "") +
        `, with ${bytesText(best[2])} on a device` + (best[3] ? ` and ${bytesText(best[3])} beside it.` : "."));
    showLine(`${again} --explain "${best[4]}"`);
  } else {
    const least = front.filter(plan => plan[3] <= host).sort((a, b) => a[2] - b[2])[0];
    showLine(least ? `${again} --explain "${least[4]}"` : "");
    say("No plan fits. ", ...(least ? [bold(least[0]), ` needs the least: ${bytesText(least[2])}.`] : ["All keep something on the host."]));
  }
  for (const [name, field] of Object.entries(limits)) if (field.value === "") view.delete(name); else view.set(name, field.value);
  remember();
}

for (const [name, field] of Object.entries(limits)) {
  if (view.has(name)) field.value = view.get(name);
  field.addEventListener("input", answer);
}
answer();
