// Completing a look: what the outfit has, which types to find, and the looks that the service answers with.
"use strict";

let worn = null; // a person's own photo, a Blob; never part of the address
let latestLook = 0; // number of the newest request: answers of older ones are dropped

const completes = () => runOf(asked.run)?.completes || [];

// Shows what can be asked of the run; called whenever the runs or what is asked for have changed.
function showLook() {
  const types = completes(), box = $("look_box");
  box.hidden = !types.length;
  for (const button of document.querySelectorAll("[data-act=look]")) button.hidden = !types.length || button.dataset.side !== "0";
  if (box.hidden) return;
  if (box.dataset.types !== JSON.stringify(types)) {
    box.dataset.types = JSON.stringify(types);
    $("look_type").replaceChildren(...types.map((name) => element("option", name, { value: name })));
    $("look_slots").replaceChildren(...types.map((name) => {
      const label = element("label", null), input = element("input", null, { type: "checkbox", value: name });
      label.append(input, element("span", name));
      return label;
    }));
  }
  for (const input of $("look_slots").querySelectorAll("input")) input.checked = asked.slots.includes(input.value);
  $("look_start").replaceChildren(...asked.look.map((id) => {
    const made = element("span", titleOf(id), { class: "chip", title: id });
    const button = element("button", "×", { type: "button", "aria-label": `Remove ${titleOf(id)} from the outfit` });
    button.addEventListener("click", () => { asked.look = asked.look.filter((one) => one !== id); showLook(); });
    made.append(button);
    return made;
  }));
  $("look_conditions").checked = !!asked.narrowed;
  $("look_photo").hidden = !worn;
}

// Fields that may differ between looks: those of the filters, without words of titles.
function showVary(known) {
  const fields = known.filter((name) => name !== "mined"), select = $("look_vary"), [chosen] = asked.vary;
  if (select.dataset.fields !== JSON.stringify(fields)) {
    select.dataset.fields = JSON.stringify(fields);
    select.replaceChildren(element("option", "anything", { value: "" }), ...fields.map((name) => element("option", name, { value: name })));
  }
  select.value = ["", ...fields].includes(chosen) ? chosen : fields.find((name) => name === "colour" || name === "color") || "";
}

function startLook(id) {
  if (!asked.look.includes(id)) asked.look.push(id);
  showLook();
  $("look_box").open = true;
  $("look_box").scrollIntoView();
  $("look_slots").querySelector("input")?.focus();
}

function forgetLook() {
  worn = null;
  Object.assign(asked, { look: [], slots: [], vary: [], narrowed: "" });
  clearLooks();
  showLook();
}

// Takes looks away that were not asked for as what is asked for now, and drops answers on their way.
function clearLooks(problem = "") {
  latestLook += 1;
  $("looks").replaceChildren();
  $("looks").setAttribute("aria-busy", "false");
  $("look_status").textContent = "";
  $("look_error").textContent = problem;
  $("look_error").hidden = !problem;
}

// Shows the looks of an address that somebody has shared, or come back to.
function addressedLooks() {
  clearLooks();
  if (!asked.look.length || !asked.slots.length) return;
  $("look_box").open = true;
  showLooks();
}

function wear(blob) {
  if (!blob) return;
  if (!blob.type.startsWith("image/")) {
    clearLooks("That is not a picture: choose a JPEG, PNG or WebP file.");
    return;
  }
  worn = blob;
  URL.revokeObjectURL($("look_picture").src);
  $("look_picture").src = URL.createObjectURL(blob);
  showLook();
}

function askLooks() {
  const { required, excluded } = asked.narrowed ? meant() : {};
  const body = { run: asked.run, listings: asked.look, slots: asked.slots, vary: asked.vary[0] ?? $("look_vary").value,
    conditions: { required: required || [], excluded: excluded || [] } };
  const post = (options) => call("/v1/looks", { method: "POST", ...options });
  if (!worn) return post({ headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  const form = new FormData();
  form.append("picture", worn, "picture");
  form.append("request", JSON.stringify({ ...body, type: $("look_type").value }));
  return post({ body: form });
}

// Conditions of the search that is shown, with those among its words.
const meant = () => shown[0]?.answer.conditions || asked.conditions;

async function showLooks() {
  if (!asked.slots.length || !(asked.look.length || worn)) {
    clearLooks(asked.slots.length ? 'There is nothing to start from: press "Complete the look" at a result, or give a photo.' : "Choose the types to find.");
    return;
  }
  clearLooks();
  const number = latestLook;
  toAddress();
  $("looks").setAttribute("aria-busy", "true");
  $("look_status").textContent = "Completing …";
  try {
    if (asked.narrowed && !(await pending)) throw new Error("The search failed, and its conditions are not known: search again.");
    if (number !== latestLook) return;
    const wishes = asked.narrowed && meant().preferred?.length, found = await askLooks();
    if (number !== latestLook) return;
    $("looks").replaceChildren(...found.looks.map(look));
    const count = found.looks.length;
    const notes = [found.note && `${found.note}.`, wishes && "Preferred conditions are not used."].filter(Boolean);
    $("look_status").textContent = [`${count} ${count === 1 ? "look" : "looks"}, the best first.`, ...notes].join(" ");
    $("looks").setAttribute("aria-busy", "false");
  } catch (error) {
    if (number === latestLook) clearLooks(error.message);
  }
}

function look({ score, items }, place) {
  const made = element("section", null, { class: "look" });
  made.append(element("h3", `Look ${place + 1} · ${score.toFixed(3)}`, { title: "1 less the mean distance of all pairs of the outfit: higher goes together better." }));
  const list = element("div", null, { class: "list" });
  for (const { slot, listing } of items) {
    const one = element("article", null, { class: "hit" }), frame = element("div", null, { class: "frame" });
    const image = element("img", null, { loading: "lazy", decoding: "async", alt: listing.title || listing.id });
    const absent = () => image.replaceWith(element("span", "no picture", { class: "muted" }));
    image.addEventListener("error", absent);
    frame.append(image);
    if (listing.picture) image.src = listing.picture;
    else absent();
    const said = element("div", null, { class: "said" });
    said.append(element("h4", listing.title || listing.id, { class: "name" }), element("p", slot, { class: "scored muted" }));
    one.append(frame, said);
    list.append(one);
  }
  made.append(list);
  return made;
}

function completing() {
  $("look_file").addEventListener("change", (event) => { wear(event.target.files[0]); event.target.value = ""; });
  $("look_remove").addEventListener("click", () => { worn = null; showLook(); });
  $("look_slots").addEventListener("change", () => {
    asked.slots = [...$("look_slots").querySelectorAll("input:checked")].map((input) => input.value);
  });
  $("look_vary").addEventListener("change", () => { asked.vary = [$("look_vary").value]; });
  $("look_conditions").addEventListener("change", () => { asked.narrowed = $("look_conditions").checked ? "1" : ""; });
  $("look_go").addEventListener("click", showLooks);
}
