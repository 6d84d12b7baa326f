// What the search page says in words: stages, what ordered the results, scores and reasons.
"use strict";

// Stages that a config may name otherwise have their name alone.
const STAGES = {
  cosine: ["plain", "Listings in the order of their similarity (cosine) in the network's own space."],
  whitening: ["rescaled", "The network's space is rescaled first, so that what all listings share counts less."],
  reranking: ["reordered", "The first results are reordered by how they resemble each other."],
  chosen: ["best steps", "The steps after the network that scored best on held-out queries when the run was searched."],
};

function stageOption(name) {
  return [name, name in STAGES ? `${name} (${STAGES[name][0]})` : name];
}

function stageAbout(name) {
  return STAGES[name]?.[1] || "A step of the run's own search.";
}

// Why a run has no option for a stage of its table, and what is searched by in place of it.
function leftOut(run) {
  return run?.note ? `${run.name}: ${run.note}. By default, searches use "${run.stages.at(-1)}".` : "";
}

function orderedBy(answer) {
  if (answer.scored_by === "nothing") return "in the catalogue's order";
  if (answer.scored_by === "bm25") return "by words in titles (BM25)";
  const given = [picture && "picture", asked.like.length && "chosen listings", answer.words && "words"].filter(Boolean);
  const together = `by ${given.join(" and ")}${given.length > 1 ? " together" : ""}`;
  return answer.scored_by === "fusion" ? `${together} (fusion of cosine and BM25)` : `${together} (cosine similarity)`;
}

const SCORES = {
  cosine: ["similarity", "Cosine similarity: 1 is the same, 0 is unrelated."],
  bm25: ["word score", "BM25: higher where more and rarer words of the search are in the title. It has no upper limit."],
  fusion: ["combined score", "Similarity and word score, each scaled from 0 to 1 within this search, and added by weight."],
};

function scoreText(result, answer) {
  return result.score === null ? "" : `${SCORES[answer.scored_by][0]} ${result.score.toFixed(3)}`;
}

function scoreAbout(answer) {
  return SCORES[answer.scored_by]?.[1] || "";
}

// "like gallery-1" as "like the title of it".
function partName(name) {
  const [, what, id] = name.match(/^(like|unlike) (.*)$/s) || [];
  return what ? `${what === "like" ? "more" : "less"} like ${titleOf(id)}` : name;
}

function whyLines(result, answer) {
  const found = Object.entries(result.why.parts), lines = [];
  if (answer.scored_by === "bm25") {
    lines.push(`the title has words of the search: word score ${result.score.toFixed(3)} (BM25)`);
  } else if (found.length === 1) {
    const [[name, part]] = found;
    lines.push(`${partName(name)}: similarity ${part.similarity.toFixed(3)} of at most 1, in the stage "${answer.stage}"`);
  } else {
    for (const [name, part] of found) {
      lines.push(`${partName(name)}: ${Math.round(100 * part.share)} % of the score (similarity ${part.similarity.toFixed(3)}, weight ${part.weight})`);
    }
  }
  const { moved } = result.why, places = (count) => `${count} ${count === 1 ? "place" : "places"}`;
  if (moved) lines.push(`the stage "${answer.stage}" re-ranked it: ${moved > 0 ? "up" : "down"} by ${places(Math.abs(moved))}`);
  else if (moved === 0) lines.push(`the stage "${answer.stage}" re-ranked the results and left it in its place`);
  for (const reason of result.why.reasons) {
    const chance = reason.probability !== null && reason.probability < 1 ? `, ${Math.round(100 * reason.probability)} %` : "";
    lines.push(`${reason.kind} ${reason.text}: ${reason.state}${chance}`);
  }
  return lines;
}

// ------------------------------------------------------------------------------------------------- titles of listings

const titles = new Map(); // {run and id: title} of listings that were shown or looked up
const titleKey = (id) => `${asked.run || runs[0]?.name || ""} ${id}`;

const titleOf = (id) => titles.get(titleKey(id)) || id;

// Looks up the titles of listings that an address names; shows the conditions again when one is found.
function findTitles(ids) {
  for (const id of ids) {
    const key = titleKey(id);
    if (titles.has(key)) continue;
    titles.set(key, id);
    const words = new URLSearchParams(asked.run ? { run: asked.run } : {});
    call(`/v1/listings/${encodeURIComponent(id)}?${words}`).then(({ title }) => {
      titles.set(key, title || id);
      controls();
    }).catch(() => {});
  }
}
