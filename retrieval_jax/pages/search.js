// The search page: what is asked for is one object, `asked`; its address, its requests and the page are made from it.
"use strict";

const $ = (id) => document.getElementById(id);
const PAGE = 24;
const FEW = 12; // values of a field, before all of them are asked for
const MOST = 1000; // values of a field that the service lists
const asked = { words: "", weight: 1, run: "", stage: "", run_b: "", stage_b: "", conditions: {}, like: [], unlike: [], look: [], slots: [], vary: [], narrowed: "" };
const KINDS = ["required", "preferred", "excluded"];
let runs = [];
let picture = null; // a Blob; never part of the address
let box = null; // [ymin, xmin, ymax, xmax], shares
let shown = []; // per side {answer, results}
let compared = ""; // what the verdict that is shown is about
const whole = new Set(); // fields whose values are all shown
let pending = null; // the newest search: whether it was answered
let latest = 0; // number of the newest search: answers of older ones are dropped
const session = crypto.randomUUID ? crypto.randomUUID() : "";

// ------------------------------------------------------------------------------------------------------------ requests

function request(side, offset) {
  const body = { words: asked.words, weight: asked.weight, conditions: asked.conditions, like: asked.like,
    unlike: asked.unlike, k: PAGE, offset, run: side ? asked.run_b : asked.run,
    stage: side ? asked.stage_b : asked.stage };
  if (picture) Object.assign(body, { predict: !side && !offset && !seen }, box ? { box } : {});
  for (const name of Object.keys(body)) {
    const value = body[name];
    if (value === "" || value === false || (name === "offset" && !value) || (name === "weight" && value === 1)
      || (typeof value === "object" && !Object.keys(value).length)) delete body[name];
  }
  return body;
}

async function call(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The service cannot be reached: is it still running?");
  }
  const found = await answer.json().catch(() => ({ error: `status ${answer.status}` }));
  if (!answer.ok) throw new Error(found.error || `status ${answer.status}`);
  return found;
}

function ask(side, offset) {
  const body = request(side, offset);
  if (!picture) {
    return call("/v1/search", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  }
  const form = new FormData();
  form.append("picture", picture, "picture");
  form.append("request", JSON.stringify(body));
  return call("/v1/search", { method: "POST", body: form });
}

function curl() {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const body = JSON.stringify(request(0, 0));
  const what = picture ? `-F picture=@picture.jpg --form-string request=${quoted(body)}` : `-H 'content-type: application/json' -d ${quoted(body)}`;
  return `curl ${quoted(location.origin + "/v1/search")} ${what}`;
}

// ------------------------------------------------------------------------------------------------------------ address

function toAddress() {
  const kept = Object.fromEntries(Object.entries(asked).filter(([name, value]) =>
    name === "weight" ? value !== 1 : typeof value === "object" ? Object.keys(value).length : value));
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(kept)) words.set(name, typeof value === "object" ? JSON.stringify(value) : value);
  const address = location.pathname + (words.size ? `#${words}` : "");
  if (address !== location.pathname + location.hash) history.pushState(null, "", address);
}

function fromAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const parsed = (name, empty) => {
    try {
      const value = JSON.parse(words.get(name));
      return Array.isArray(value) === Array.isArray(empty) && value && typeof value === "object" ? value : empty;
    } catch {
      return empty;
    }
  };
  for (const name of ["words", "run", "stage", "run_b", "stage_b", "narrowed"]) asked[name] = words.get(name) || "";
  asked.weight = Math.min(3, Math.max(0, parseFloat(words.get("weight") ?? "1") || 0));
  const given = parsed("conditions", {});
  asked.conditions = {};
  for (const kind of KINDS) if (Array.isArray(given[kind])) asked.conditions[kind] = given[kind].filter((one) => one && typeof one.field === "string" && (one.values == null || Array.isArray(one.values)));
  for (const name of ["like", "unlike", "look", "slots", "vary"]) asked[name] = parsed(name, []).filter((id) => typeof id === "string");
  $("words").value = asked.words;
  $("weight").value = asked.weight;
}

// ------------------------------------------------------------------------------------------------------------ searching

function search(offset = 0) {
  if (!offset && asked.narrowed) clearLooks(); // their conditions may be others now
  return pending = answered(offset);
}

// Searches, and returns whether the answer is shown; false for one that a newer search has overtaken.
async function answered(offset) {
  const number = ++latest;
  let good = true;
  asked.words = $("words").value.trim();
  asked.weight = parseFloat($("weight").value);
  if (!offset) toAddress();
  controls();
  $("results").setAttribute("aria-busy", "true");
  const sides = asked.run_b ? [0, 1] : [0];
  const loaded = sides.every((side) => !runs.length || runOf(side ? asked.run_b : asked.run)?.loaded);
  $("status").textContent = loaded ? "Searching …" : "Loading the run: about half a minute …";
  try {
    const found = await Promise.all(sides.map((side) => ask(side, offset)));
    if (number !== latest) return false;
    $("error").hidden = true;
    shown = found.map((answer, side) => ({ answer, results: offset ? [...shown[side].results, ...answer.results] : answer.results }));
    results(offset);
    if (picture && !box && found[0].box) { box = found[0].box; showBox(); }
    if (picture && !seen) await see(found[0].predicted);
    else showSeen();
    verdict();
    const known = await facets();
    if (number === latest && known) showFacets(known);
  } catch (error) {
    if (number !== latest) return false;
    good = false;
    $("error").textContent = error.message;
    $("error").hidden = false;
    $("status").textContent = "";
  }
  served(await call("/v1/runs").catch(() => runs));
  if (number === latest) $("results").setAttribute("aria-busy", "false");
  return good && number === latest;
}

// Whether the first search is the better one on the queries of the catalogue, as `compare` says.
async function verdict() {
  const [one, other] = shown.map(({ answer }) => answer), line = $("verdict");
  const about = other && (one.run !== other.run || one.stage !== other.stage) ? new URLSearchParams({ run: one.run, stage: one.stage, against: other.run, against_stage: other.stage }) : "";
  if (String(about) === compared && about) return;
  compared = String(about);
  line.hidden = !about;
  if (!about) return;
  line.textContent = "Comparing the two on the queries of the catalogue …";
  line.title = line.className = "";
  try {
    const found = await call(`/v1/verdict?${about}`);
    if (compared !== String(about)) return;
    line.textContent = found.score ? `${one.run}, ${one.stage} against ${other.run}, ${other.stage}: ${found.sentence} (${found.queries.toLocaleString()} queries)` : found.sentence;
    line.title = found.explanation;
    line.classList.toggle("noise", found.noise !== false);
  } catch (error) {
    if (compared !== String(about)) return;
    compared = ""; // the next search asks again
    line.textContent = error.message;
  }
}

function facets() {
  const words = new URLSearchParams({ top: whole.size ? MOST : FEW + 1 });
  if (asked.run) words.set("run", asked.run);
  const { conditions } = shown[0].answer; // with those among the words
  if (Object.keys(conditions).length) words.set("conditions", JSON.stringify(conditions));
  return call(`/v1/facets?${words}`).catch(() => null);
}

// ------------------------------------------------------------------------------------------------------------ showing

function element(kind, text, attributes = {}) {
  const made = document.createElement(kind);
  if (text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function results(offset) {
  const columns = $("results"), two = shown.length > 1;
  columns.classList.toggle("two", two);
  if (!offset) columns.replaceChildren();
  shown.forEach(({ answer, results }, side) => {
    let list = columns.children[side];
    if (!list) {
      list = element("div", null, { class: "list" });
      if (two) list.append(element("h2", `${answer.run}, ${answer.stage}`));
      columns.append(list);
    }
    const other = two ? new Map(shown[1 - side].results.map((one) => [one.id, one.place])) : null;
    for (const result of answer.results) list.append(card(result, answer, side, other));
    list.querySelector("#more")?.remove();
    const more = results.length < Math.min(answer.matches, 1000 - PAGE) && answer.results.length === PAGE;
    if (more && !side) {
      const button = element("button", "More results", { id: "more", type: "button" });
      button.addEventListener("click", () => search(results.length));
      list.append(button);
    }
  });
  const { answer } = shown[0];
  let text = `${answer.matches.toLocaleString()} ${answer.matches === 1 ? "listing" : "listings"}, ${orderedBy(answer)}.`;
  if (two) {
    const before = new Set(shown[0].results.map((one) => one.id));
    const common = shown[1].results.filter((one) => before.has(one.id)).length;
    text += ` Of the first ${shown[0].results.length} results, the two searches share ${common}.`;
  }
  $("status").textContent = answer.note ? `${text} ${answer.note}.` : text;
}

function card(result, answer, side, other) {
  const made = $("card").content.firstElementChild.cloneNode(true);
  const image = made.querySelector("img");
  const absent = () => image.replaceWith(element("span", "no picture", { class: "muted" }));
  image.alt = result.title || result.id;
  image.addEventListener("error", absent);
  if (result.picture) image.src = result.picture;
  else absent();
  made.querySelector(".name").textContent = result.title || result.id;
  if (!side || !titles.has(titleKey(result.id))) titles.set(titleKey(result.id), result.title || result.id);
  let scored = `${result.place}`;
  if (result.score !== null) scored += ` · ${scoreText(result, answer)}`;
  if (result.why.moved) scored += ` · re-ranking moved it ${result.why.moved > 0 ? "up" : "down"} by ${Math.abs(result.why.moved)}`;
  if (other) {
    const there = other.get(result.id);
    scored += there === undefined ? " · only here" : there === result.place ? " · same place there" : ` · place ${there} there`;
    made.classList.toggle("first_seen", there === undefined);
  }
  made.querySelector(".scored").textContent = scored;
  made.querySelector(".scored").title = scoreAbout(answer);
  const values = made.querySelector(".values"), seen = new Set();
  for (const [field, several] of Object.entries(result.attributes)) {
    for (const { value, probability } of several.slice(0, 6)) {
      if (seen.has(value)) continue;
      seen.add(value);
      const guess = probability < 1 ? ` (predicted, ${Math.round(100 * probability)} %)` : "";
      values.append(element("li", `${value}${guess}`, { title: field, ...(guess ? { class: "guess" } : {}) }));
    }
  }
  const why = made.querySelector(".why"), lines = why.querySelector("ul");
  for (const line of whyLines(result, answer)) lines.append(element("li", line));
  why.hidden = !lines.children.length;
  const name = result.title || result.id;
  for (const button of made.querySelectorAll("[data-act]")) {
    button.setAttribute("aria-label", `${button.getAttribute("aria-label") || button.textContent}: ${name}`);
    button.dataset.side = side;
    button.addEventListener("click", () => act(button, result, answer, side));
  }
  return made;
}

async function act(button, result, answer, side) {
  const what = button.dataset.act;
  if (what === "look") return startLook(result.id);
  if (what === "like" || what === "unlike") {
    const other = what === "like" ? "unlike" : "like";
    asked[other] = asked[other].filter((id) => id !== result.id);
    if (!asked[what].includes(result.id)) asked[what].push(result.id);
    if (!asked.like.length && !picture && !$("words").value.trim()) asked.like.push(...shown[side].results.slice(0, 3).map((one) => one.id).filter((id) => id !== result.id));
    await search();
    scrollTo({ top: 0 });
    return;
  }
  try {
    await call("/v1/judgements", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({
      run: answer.run, listing: result.id, verdict: what, search: answer.search, words: answer.words, place: result.place,
      picture: answer.picture, like: asked.like,
      shown: shown[side].results.map((one) => one.id).slice(0, 200), session }) });
    for (const one of button.parentElement.querySelectorAll("[data-act=up], [data-act=wrong]")) one.setAttribute("aria-pressed", String(one === button));
    $("status").textContent = "Recorded, thank you.";
  } catch (error) {
    $("error").textContent = error.message;
    $("error").hidden = false;
  }
}

function has(kind, field, value) {
  return (asked.conditions[kind] || []).some((one) => one.field === field && (one.values || []).includes(value));
}

function toggle(kind, field, value) {
  const clauses = asked.conditions[kind] || [];
  const one = clauses.find((clause) => clause.field === field && clause.values);
  if (!one) clauses.push({ field, values: [value] });
  else if (one.values.includes(value)) one.values = one.values.filter((other) => other !== value);
  else one.values.push(value);
  asked.conditions[kind] = clauses.filter((clause) => !clause.values || clause.values.length);
  if (!asked.conditions[kind].length) delete asked.conditions[kind];
}

function showFacets(known) {
  const open = document.activeElement?.dataset?.key, parts = [];
  for (const [field, counts] of Object.entries(known.fields)) {
    parts.push(element("h2", field));
    for (const { value, listings } of counts.slice(0, whole.has(field) ? MOST : FEW)) {
      const label = element("label", null);
      const input = element("input", null, { type: "checkbox", "data-key": `${field}=${value}` });
      input.checked = has("required", field, value);
      input.addEventListener("change", () => { toggle("required", field, value); search(); });
      label.append(input, element("span", value), element("span", listings.toLocaleString(), { class: "count" }));
      parts.push(label);
    }
    if (counts.length > FEW) parts.push(allOf(field));
    if (whole.has(field) && counts.length === MOST) parts.push(element("p", `the ${MOST.toLocaleString()} most frequent`, { class: "note" }));
  }
  for (const [field, range] of Object.entries(known.numbers)) {
    parts.push(element("h2", field));
    const one = (asked.conditions.required || []).find((clause) => clause.field === field) || {};
    for (const side of ["low", "high"]) {
      const input = element("input", null, { type: "number", step: "any", placeholder: range[side], "aria-label": `${field}, ${side === "low" ? "from" : "to"}`, "data-key": `${field}.${side}` });
      if (one[side] !== undefined) input.value = one[side];
      input.addEventListener("change", () => {
        const rest = (asked.conditions.required || []).filter((clause) => clause.field !== field);
        const next = { ...one, field };
        if (input.value === "") delete next[side]; else next[side] = parseFloat(input.value);
        if (next.low !== undefined || next.high !== undefined) rest.push(next);
        if (rest.length) asked.conditions.required = rest; else delete asked.conditions.required;
        search();
      });
      parts.push(input);
    }
  }
  $("facets").replaceChildren(...parts);
  showVary(Object.keys(known.fields));
  $("facets_box").hidden = !parts.length;
  if (open) [...$("facets").querySelectorAll("[data-key]")].find((one) => one.dataset.key === open)?.focus();
}

function allOf(field) {
  const shows = whole.has(field);
  const button = element("button", shows ? "Show fewer" : "Show all", { type: "button", "data-key": `${field}, all`, "aria-label": `${shows ? "Show fewer" : "Show all"} values of ${field}` });
  button.addEventListener("click", async () => {
    if (shows) whole.delete(field); else whole.add(field);
    const known = await facets();
    if (known) showFacets(known);
  });
  return button;
}

function chip(text, label, remove) {
  const made = element("span", text, { class: "chip" });
  const button = element("button", "×", { type: "button", "aria-label": label });
  button.addEventListener("click", () => { remove(); search(); });
  made.append(button);
  return made;
}

function controls() {
  const chips = [];
  for (const kind of KINDS) {
    for (const clause of asked.conditions[kind] || []) {
      const range = `${clause.low ?? ""} to ${clause.high ?? ""}`;
      const text = `${kind === "required" ? "" : `${kind}: `}${clause.field}: ${clause.values ? clause.values.join(" or ") : range}`;
      chips.push(chip(text, `Remove ${text}`, () => {
        asked.conditions[kind] = asked.conditions[kind].filter((one) => one !== clause);
        if (!asked.conditions[kind].length) delete asked.conditions[kind];
      }));
    }
  }
  for (const what of ["like", "unlike"]) {
    for (const id of asked[what]) {
      const text = `${what === "like" ? "more" : "less"} like ${titleOf(id)}`;
      chips.push(chip(text, `Remove ${text}`, () => { asked[what] = asked[what].filter((one) => one !== id); }));
      chips.at(-1).title = id;
    }
  }
  findTitles([...asked.like, ...asked.unlike, ...asked.look]);
  $("active").replaceChildren(...chips);
  $("weight_shown").textContent = $("weight").value;
  $("weight").hidden = $("weight_label").hidden = !(picture || asked.like.length) || !$("words").value.trim();
  if (!picture) forget();
  showLook();
}

const runOf = (name) => runs.find((run) => run.name === name) || runs[0];

function served(found) {
  runs = found;
  const { cannot } = runOf(asked.run) || { cannot: {} };
  const left = [runOf(asked.run), asked.run_b && asked.run_b !== (asked.run || runs[0]?.name) && runOf(asked.run_b)];
  $("left_out").textContent = left.map((run) => leftOut(run)).filter(Boolean).join(" ");
  $("left_out").hidden = !$("left_out").textContent;
  for (const [kind, inputs] of [["words", ["words"]], ["pictures", ["file", "photo"]]]) {
    $(`no_${kind}`).textContent = cannot[kind] || "";
    $(`no_${kind}`).hidden = !cannot[kind];
    for (const id of inputs) {
      $(id).disabled = Boolean(cannot[kind]);
      document.querySelector(`label.button[for=${id}]`)?.classList.toggle("off", $(id).disabled);
    }
  }
  const options = (select, names, value) => {
    select.replaceChildren(...names.map(([name, text]) => element("option", text, { value: name })));
    select.value = names.some(([name]) => name === value) ? value : names[0]?.[0] ?? "";
  };
  const named = runs.map((run) => [run.name, run.name]);
  options($("run"), named, asked.run);
  options($("run_b"), [["", "nothing"], ...named], asked.run_b);
  for (const [select, name, value] of [["stage_a", asked.run || runs[0]?.name, asked.stage], ["stage_b", asked.run_b, asked.stage_b]]) {
    const stages = runs.find((run) => run.name === name)?.stages || [];
    options($(select), stages.map(stageOption), value || stages.at(-1));
    $(select).title = stageAbout($(select).value);
    $(select).hidden = !stages.length;
  }
  showLook();
}

// ------------------------------------------------------------------------------------------------------------ the picture

function take(blob) {
  if (!blob) return;
  if ($("file").disabled) {
    $("error").textContent = $("no_pictures").textContent;
    $("error").hidden = false;
    return;
  }
  if (!blob.type.startsWith("image/")) {
    $("error").textContent = "That is not a picture: choose a JPEG, PNG or WebP file.";
    $("error").hidden = false;
    return;
  }
  URL.revokeObjectURL($("picture").src);
  picture = blob;
  box = null;
  forget();
  $("picture").src = URL.createObjectURL(blob);
  $("chosen").hidden = false;
  showBox();
  search();
}

const partial = () => Boolean(box) && box.join() !== "0,0,1,1";

function showBox() {
  $("box").hidden = !partial();
  $("boxed").setAttribute("aria-pressed", String(partial()));
  if (!partial()) return;
  const [top, left, bottom, right] = box;
  Object.assign($("box").style, { top: `${100 * top}%`, left: `${100 * left}%`, height: `${100 * (bottom - top)}%`, width: `${100 * (right - left)}%` });
}

function moveBox(down, across, resize) {
  const least = 0.05, clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  let [top, left, bottom, right] = box;
  if (resize) {
    bottom = clamp(bottom + down, top + least, 1);
    right = clamp(right + across, left + least, 1);
  } else {
    down = clamp(down, -top, 1 - bottom);
    across = clamp(across, -left, 1 - right);
    [top, left, bottom, right] = [top + down, left + across, bottom + down, right + across];
  }
  box = [top, left, bottom, right].map((value) => Math.min(1, Math.max(0, value)));
  forget();
  showBox();
}

function boxes() {
  const handle = $("box");
  let from = null, timer = 0;
  handle.addEventListener("pointerdown", (event) => {
    const edge = handle.getBoundingClientRect();
    from = { x: event.clientX, y: event.clientY, resize: event.clientX > edge.right - 14 && event.clientY > edge.bottom - 14 };
    handle.setPointerCapture(event.pointerId);
  });
  handle.addEventListener("pointermove", (event) => {
    if (!from) return;
    const whole = $("stage").getBoundingClientRect();
    moveBox((event.clientY - from.y) / whole.height, (event.clientX - from.x) / whole.width, from.resize);
    Object.assign(from, { x: event.clientX, y: event.clientY });
  });
  handle.addEventListener("pointerup", () => { if (from) search(); from = null; });
  handle.addEventListener("pointercancel", () => { from = null; });
  handle.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-0.02, 0], ArrowDown: [0.02, 0], ArrowLeft: [0, -0.02], ArrowRight: [0, 0.02] }[event.key];
    if (!step) return;
    event.preventDefault();
    moveBox(...step, event.shiftKey);
    clearTimeout(timer);
    timer = setTimeout(search, 400);
  });
  $("boxed").addEventListener("click", () => { box = partial() ? [0, 0, 1, 1] : [0.15, 0.15, 0.85, 0.85]; forget(); showBox(); search(); });
  $("remove").addEventListener("click", () => { picture = box = null; $("chosen").hidden = true; showBox(); search(); });
}

// ------------------------------------------------------------------------------------------------------------ starting

async function start() {
  $("form").addEventListener("submit", (event) => { event.preventDefault(); search(); });
  $("weight").addEventListener("input", () => { $("weight_shown").textContent = $("weight").value; });
  $("weight").addEventListener("change", () => search());
  for (const id of ["file", "photo"]) $(id).addEventListener("change", (event) => { take(event.target.files[0]); event.target.value = ""; });
  for (const [id, name] of [["run", "run"], ["stage_a", "stage"], ["run_b", "run_b"], ["stage_b", "stage_b"]]) {
    $(id).addEventListener("change", (event) => {
      asked[name] = event.target.value;
      if (name === "run") {
        asked.stage = "";
        forgetLook();
        whole.clear();
        forget();
      }
      if (name === "run_b") { // of one run, two stages are worth comparing
        const first = asked.run || runs[0]?.name;
        asked.stage_b = asked.run_b === first ? runs.find((run) => run.name === first)?.stages[0] || "" : "";
      }
      search();
    });
  }
  $("clear").addEventListener("click", () => {
    picture = box = null;
    Object.assign(asked, { conditions: {}, like: [], unlike: [] });
    forgetLook();
    $("words").value = "";
    $("weight").value = 1;
    $("chosen").hidden = true;
    showBox();
    search();
  });
  $("curl").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(curl());
      $("status").textContent = "Copied.";
    } catch {
      $("status").textContent = curl();
    }
  });
  const drop = $("drop");
  for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); take(event.dataTransfer.files[0]); });
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files || [])].find((one) => one.type.startsWith("image/"));
    if (file) { event.preventDefault(); take(file); }
  });
  addEventListener("popstate", async () => { fromAddress(); clearLooks(); if (await search()) addressedLooks(); });
  boxes();
  overruling();
  completing();
  $("facets_box").open = $("seen_box").open = matchMedia("(min-width: 761px)").matches;
  fromAddress();
  served(await call("/v1/runs").catch(() => []));
  if (await search()) addressedLooks();
}

start();
