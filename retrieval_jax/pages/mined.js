"use strict";
// Search, sorting and click-to-overrule of mined.html. The page works without it; nothing is loaded or sent.
const find = (id) => document.getElementById(id);
const sections = [...document.querySelectorAll("section")].filter((one) => one.id !== "decisions");
const rows = sections.flatMap((one) => [...one.querySelectorAll("tbody tr")]);
const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
const buttons = new Map();

function lines() {
  return find("lines").value.split("\n").map((line) => line.trim()).filter(Boolean);
}

function show(chosen) {
  find("lines").value = chosen.join("\n");
  update();
}

function update() {
  const chosen = new Set(lines());
  find("picked").hidden = !chosen.size;
  find("count").textContent = chosen.size === 1 ? "1 line." : chosen.size + " lines.";
  buttons.forEach((line, button) => {
    const on = chosen.has(line);
    button.setAttribute("aria-pressed", String(on));
    button.textContent = on ? "overruled" : "overrule";
  });
}

function toggle(line) {
  const chosen = lines();
  show(chosen.includes(line) ? chosen.filter((one) => one !== line) : [...chosen, line]);
}

function cell(word) {
  return /[,"]/.test(word) ? '"' + word.replaceAll('"', '""') + '"' : word;
}

function search() {
  const words = find("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of rows) {
    row.hidden = !words.every((word) => texts.get(row).includes(word));
    count += !row.hidden;
  }
  for (const one of sections) one.hidden = !one.querySelector("tbody tr:not([hidden])");
  find("found").textContent = words.length ? count + " of " + rows.length + " rows" : "";
}

function value(row, column, number) {
  const text = row.children[column].textContent.trim();
  return number ? Number(text.replaceAll(",", "")) : text;
}

function sort(table, head, column) {
  const number = head.classList.contains("number");
  const before = head.getAttribute("aria-sort");
  const down = number ? before !== "descending" : before === "ascending";
  for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const order = [...table.tBodies[0].rows].sort((one, other) => {
    const [a, b] = [value(one, column, number), value(other, column, number)];
    return (number ? a - b : a.localeCompare(b)) * (down ? -1 : 1);
  });
  table.tBodies[0].append(...order);
}

for (const table of document.querySelectorAll("section table")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(table, head, column));
    head.replaceChildren(button);
  });
}

for (const row of rows) {
  const code = row.querySelector("td:last-child code");
  if (!code) continue;
  const button = document.createElement("button");
  button.type = "button";
  button.addEventListener("click", () => toggle(code.textContent));
  buttons.set(button, code.textContent);
  code.after(" ", button);
}

find("search").addEventListener("input", search);
find("lines").addEventListener("input", update);
find("clear").addEventListener("click", () => show([]));
find("merge").addEventListener("click", () => {
  const words = [find("from").value.trim(), find("into").value.trim()];
  if (words[0] && words[1]) toggle("merge," + words.map(cell).join(","));
});
find("copy").addEventListener("click", () => {
  find("lines").select();
  if (navigator.clipboard) navigator.clipboard.writeText(find("lines").value);
  else document.execCommand("copy");
});
find("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines().join("\n") + "\n"], { type: "text/csv" }));
  link.download = "overrules.csv";
  link.click();
  URL.revokeObjectURL(link.href);
});
find("tools").hidden = false;
update();
