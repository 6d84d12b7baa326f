// The attributes that the network sees in the picture: each can be exchanged, removed, made a condition, or called wrong.
"use strict";

let seen = null; // [{field, value, probability, known}], as a person left them; null before the picture was searched with
// Of what is less probable than this, at least three of four are wrong, as far as the network knows its own mind: that is
// noise beside the rest, and shown only where somebody asks for it.
const LIKELY = 0.25;
let unlikely = false; // whether what is less probable is shown as well
let values = {}; // {field: values of the gallery}, to exchange one for another

const line = ({ value }) => `drop,${/[,"]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value}`;
const lines = () => $("lines").value.split("\n").map((one) => one.trim()).filter(Boolean);

function forget() {
  seen = null;
  unlikely = false;
  showSeen();
}

async function see(predicted) {
  seen = predicted.map((one) => ({ ...one }));
  showSeen();
  const words = new URLSearchParams({ top: "200", ...(asked.run ? { run: asked.run } : {}) });
  const known = seen.length ? await call(`/v1/facets?${words}`).catch(() => null) : null;
  values = known ? Object.fromEntries(Object.entries(known.fields).map(([field, counts]) => [field, counts.map((one) => one.value)])) : {};
  showSeen();
}

// Replaces a value wherever it is a condition; without a next one, removes it.
function change(one, next) {
  for (const kind of ["required", "preferred"]) {
    if (!has(kind, one.field, one.value)) continue;
    for (const clause of asked.conditions[kind]) {
      if (clause.field !== one.field || !clause.values) continue;
      clause.values = clause.values.flatMap((value) => (value !== one.value ? [value] : next ? [next] : []));
      clause.values = [...new Set(clause.values)];
    }
    asked.conditions[kind] = asked.conditions[kind].filter((clause) => !clause.values || clause.values.length);
    if (!asked.conditions[kind].length) delete asked.conditions[kind];
  }
}

const isShown = (one) => unlikely || one.probability === null || one.probability >= LIKELY || isCondition(one) || isWrong(one);
const isCondition = (one) => has("required", one.field, one.value) || has("preferred", one.field, one.value);

function remove(one) {
  const searched = isCondition(one);
  change(one, "");
  seen = seen.filter((other) => other !== one);
  if (searched) search();
  else showSeen();
}

function exchange(one, next) {
  const searched = isCondition(one);
  change(one, next);
  Object.assign(one, { value: next, probability: null, known: true });
  if (searched) search();
  else showSeen();
}

function bySeen() {
  const chosen = seen.filter((one) => one.known && isShown(one) && !isWrong(one) && !isCondition(one));
  asked.conditions.preferred = [...(asked.conditions.preferred || []), ...chosen.map(({ field, value }) => ({ field, values: [value] }))].slice(0, 20);
  if (!asked.conditions.preferred.length) delete asked.conditions.preferred;
  search();
}

function seenChip(one) {
  const made = element("span", null, { class: "chip seen", title: one.field });
  const chance = one.probability === null ? "" : ` ${Math.round(100 * one.probability)} %`;
  const button = element("button", `${one.value}${chance}`, { type: "button", "aria-pressed": String(isCondition(one)), "data-seen": one.value });
  button.disabled = !one.known;
  if (!one.known) button.title = "no listing has it";
  button.addEventListener("click", () => {
    if (isCondition(one)) change(one, "");
    else toggle("required", one.field, one.value);
    search();
  });
  made.append(button);
  const others = values[one.field] || [];
  if (others.length) {
    const select = element("select", null, { "aria-label": `Another value than ${one.value}` });
    for (const value of [one.value, ...others.filter((other) => other !== one.value)]) select.append(element("option", value, { value }));
    select.addEventListener("change", () => exchange(one, select.value));
    made.append(select);
  }
  if (one.field === "mined" && one.probability !== null) {
    const wrong = element("button", "wrong", { type: "button", "aria-label": `Wrong attribute: ${one.value}`, "aria-pressed": String(isWrong(one)), "data-wrong": one.value });
    wrong.addEventListener("click", () => {
      $("lines").value = (isWrong(one) ? lines().filter((other) => other !== line(one)) : [...lines(), line(one)]).join("\n");
      showSeen();
    });
    made.classList.toggle("wrong", isWrong(one));
    made.append(wrong);
  }
  const away = element("button", "×", { type: "button", "aria-label": `Remove ${one.value}` });
  away.addEventListener("click", () => remove(one));
  made.append(away);
  return made;
}

const isWrong = (one) => lines().includes(line(one));

function showSeen() {
  const every = seen || [], some = every.filter(isShown), parts = some.map(seenChip);
  if (parts.length) {
    const all = element("button", "Prefer all of these", { type: "button", id: "by_seen" });
    all.addEventListener("click", bySeen);
    parts.push(all);
  }
  if (some.length < every.length || unlikely) {
    const text = unlikely ? "Hide the unlikely ones" : `Show ${every.length - some.length} less likely`;
    const more = element("button", text, { type: "button", id: "less_likely", title: `less probable than ${100 * LIKELY} %` });
    more.addEventListener("click", () => { unlikely = !unlikely; showSeen(); $("less_likely")?.focus(); });
    parts.push(more);
  }
  $("seen_count").textContent = some.length ? `Seen in the picture (${some.length})` : "Seen in the picture: nothing with certainty";
  $("seen_box").hidden = !every.length;
  $("predicted").replaceChildren(...parts);
  $("overruled").hidden = !lines().length;
}

function overruling() {
  $("lines").addEventListener("change", showSeen);
  $("copy_lines").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(`${lines().join("\n")}\n`);
      $("status").textContent = "Copied.";
    } catch {
      $("lines").select();
      $("status").textContent = "Copy the selected lines.";
    }
  });
}
