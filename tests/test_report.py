"""The report: its content, that it is safe and self-contained, and that it fits phone and desktop screens.

Longer than 400 lines: every test looks at the report of one shared run.
"""

import base64
import hashlib
import html.parser
import json
import re
import shutil
import types

import cv2
import numpy as np
import pytest

import chromium
from retrieval_jax import __main__ as door
from retrieval_jax import report, workdir
from retrieval_jax.attributes import vocabulary as vocabularies
from retrieval_jax.data import catalog as catalogs
from retrieval_jax.data import loading
from retrieval_jax.embeddings import Embeddings, Ids
from retrieval_jax.errors import InputError
from retrieval_jax.files import atomic
from retrieval_jax.pages import rows, score_table
from retrieval_jax.scoring import metrics
from retrieval_jax.scoring.ranking import Ranking, Truth

EVIL = '<script>alert("1")</script><img src=x onerror=alert(1)> $title'
TITLES = ["blue dress", "red shoes", "green and a very very long name without end " + "x" * 90, EVIL]
VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(html.parser.HTMLParser):
    """Parses a page, failing on unbalanced tags, and collects tags, URLs and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.urls, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.urls += [value for name, value in attrs.items() if name in ("src", "href", "srcset", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.words.append(data)


def make_split(name, count, seed, titles):
    pictures = np.random.default_rng(seed).integers(0, 256, (count, 40, 30, 3), np.uint8)
    return catalogs.Split(
        name,
        [f"{name}-{i:03}" for i in range(count)],
        titles and (titles * count)[:count],
        np.full((count, 1), 0, np.int32) if titles else None,
        pictures,
    )


def make_catalog(queries=12, gallery=30):
    splits = {
        "train": make_split("train", 4, 0, TITLES),
        "val": make_split("val", 6, 1, TITLES),
        "query": make_split("query", queries, 2, None),
        "gallery": make_split("gallery", gallery, 3, TITLES),
    }
    ids = splits["query"].ids, splits["gallery"].ids
    relevant = [[ids[1][(3 * i + j) % gallery] for j in range(1 + i % 5)] for i in range(queries - 1)] + [[]]
    return catalogs.Catalog(
        "shop",
        **splits,
        truth=Truth.from_lists(*ids, relevant),
        category_levels=("leaf",),
        category_names=(["things & <b>more</b>"],),
    )


def make_config(**blocks):
    config = {
        "name": "quick <i>start</i>",
        "data": {"source": "synthetic", "kwargs": {}},
        "mine": {"threshold": 1},
        "train": {"model": {"name": "convnext", "variant": "atto", "kwargs": {}}},
        "embed": {},
        "search": {"steps": (("whitening", {}), ("reranking", {})), "members": ()},
        "evaluate": {},
        "report": {"rows": 3, "seed": 0, "stage": ""},
    }
    return {**config, **blocks}


def write_rankings(folder, catalog, names):
    stages, rng = [], np.random.default_rng(5)
    for model, stage in names:
        rows = np.stack([rng.permutation(len(catalog.gallery))[:20] for _ in range(len(catalog.query))])
        scores = -np.sort(rng.random(rows.shape).astype(np.float32), axis=1)
        rows[3, 4:], scores[3, 4:] = -1, -np.inf  # a filter left four results
        ranking = Ranking(catalog.query.ids, rows, scores, Ids.of(catalog.gallery.ids).sha256())
        ranking.save(folder / "rankings" / model / stage)
        stages.append(
            {
                "model": model,
                "stage": stage,
                **metrics.evaluate(ranking, catalog.truth),
                "report": metrics.evaluate(ranking, catalog.truth),
            }
        )
    atomic.write_json(
        folder / "rankings" / "rankings.json", {"stages": [{"model": model, "stage": stage} for model, stage in names]}
    )
    kinds = {"kind": {name: {**stages[-1], "num_scored": 5} for name in ("few & <far>", "many")}}
    stages[-1]["slices"] = {
        kind: {name: {key: value for key, value in one.items() if isinstance(value, float)} for name, one in of.items()}
        for kind, of in kinds.items()
    }
    examples = [
        {"query": catalog.query.ids[0], "gallery": catalog.gallery.ids[1], "difference": 0.02, "relevant": True}
    ]
    counts = {"listings": 12, "compared": 12, "gallery": 30, "found": 1, "relevant": 1, "examples": examples}
    near = {"max_difference": 0.05, "query": counts, "train": {"not_checked": "no pictures"}}
    atomic.write_json(folder / "metrics.json", {"stages": stages, "near_duplicates": near})
    return stages


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A work directory in which everything has run, on a catalogue of coloured noise."""
    catalog, config = make_catalog(), make_config()
    monkeypatch.setattr(loading, "load", lambda config_data: catalog)
    workdir.write_settings(config, tmp_path)
    names = [("histogram", "cosine"), ("trained", "cosine"), ("trained", "whitening"), ("trained", "reranking")]
    stages = write_rankings(tmp_path, catalog, names)
    tokens = sorted(["blue", "dress", "red", "<script>bad()</script>"])
    words = vocabularies.Vocabulary(tokens, np.array([3, 9, 5, 2]), 10, 1)
    words.save(tmp_path / "attributes" / "vocabulary.json")
    for split in ("train", "val"):
        lengths = np.array([0, 2, 0, 1, 3, 1] if split == "val" else [1, 2, 1, 4])
        ids = np.concatenate([np.arange(n) for n in lengths]).astype(np.int32)
        offsets = np.append(0, np.cumsum(lengths))
        vocabularies.save_targets(tmp_path / "attributes" / f"{split}.npz", offsets, ids, words.hash)
    vectors = np.random.default_rng(4).normal(size=(len(catalog.gallery), 8)).astype(np.float32)
    Embeddings(catalog.gallery.ids, vectors).save(tmp_path / "embeddings" / "trained" / "gallery")
    np.savez(
        tmp_path / "embeddings" / "trained" / "val_attributes.npz",
        rows=np.arange(6),
        label_ids=np.tile(np.array([3, 0, 2], np.int32), (6, 1)),
        probabilities=np.tile(np.array([0.25, 0.75, 0.5], np.float32), (6, 1)),
    )
    lines = [
        {"step": step, "time": 0.0, "loss": 3.0 / step, "grad_norm": None if step == 7 else 1.0}
        for step in range(1, 500)
    ] + [{"step": 400, "time": 1.0, "retrieval/mar@10_capped": 0.5}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 50')
    workdir.record(
        config,
        tmp_path,
        "train",
        seconds=75.4,
        cpu_seconds=100,
        summary={
            "parameters": 3_400_000,
            "steps": 499,
            "epochs": 2,
            "images_per_second": 105.0,
            "in_training_of": ["retrieval: 9 of 12 queries"],
        },
    )
    return types.SimpleNamespace(folder=tmp_path, catalog=catalog, config=config, stages=stages)


def page_of(shop, **blocks):
    summary = report.run({**shop.config, **blocks}, shop.folder)
    assert summary["path"] == str(shop.folder / "report.html")
    return (shop.folder / "report.html").read_text("utf-8")


def test_page_is_complete_and_self_contained(shop, capsys):
    page = page_of(shop)
    assert str(shop.folder / "report.html") in capsys.readouterr().out
    parsed = Page(page)
    tags = [tag for tag, _ in parsed.tags]
    assert {"script", "link", "iframe", "object", "form"}.isdisjoint(tags)
    places = {"#" + attrs["id"] for _, attrs in parsed.tags if "id" in attrs}
    pictures = [url for url in parsed.urls if url not in places]
    assert pictures and all(url.startswith("data:image/jpeg;base64,") for url in pictures)
    assert "url(" not in page and "@import" not in page and not any("style" in attrs for _, attrs in parsed.tags)
    policy = next(attrs["content"] for tag, attrs in parsed.tags if tag == "meta" and "http-equiv" in attrs)
    style = re.search("<style>(.*?)</style>", page, re.DOTALL)[1].encode()
    allowed = base64.b64encode(hashlib.sha256(style).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'"
    )
    headings = re.findall(r'<section id="([^"]+)"><h2>([^<]+)', page)
    links = re.findall(r'<li><a href="#([^"]+)">([^<]+)', page)
    assert headings == links and len(links) == len(set(links)) == len({place for place, _ in links})
    assert dict(parsed.tags)["html"]["lang"] == "en"
    assert any(attrs.get("name") == "viewport" for tag, attrs in parsed.tags if tag == "meta")
    assert all(attrs.get("alt") for tag, attrs in parsed.tags if tag == "img")
    assert all(attrs.get("aria-label") for tag, attrs in parsed.tags if tag == "svg" and attrs.get("role") == "img")
    text = " ".join(parsed.words)
    for words in (
        "499 steps",
        "2 epochs",
        "3,400,000 parameters",
        "105 pictures per second",
        "1 min 15 s",
        "30 gallery",
        "Worst queries",
        "Random queries",
        "Loss",
        "Scores while training",
        "Attributes per title",
        "Recall at k",
        "Precision and recall",
        "Most improved",
        "Most worsened",
        "Skewness of these counts",
        "Scores by slice",
        "By kind",
        "1 of 12 query listings (8.3 %) have nearly the same picture in the gallery: 1 as a right answer",
        "30 gallery listings on the plane of largest variance",
        "Then whitening",
    ):
        assert words in text, words
    assert "Not shown" not in text
    assert "Non-finite values, which are not drawn: 1 of grad_norm." in text
    assert "Scores while training are of retrieval: 9 of 12 queries. They show how" in text


def test_times_say_what_they_are_of(shop):
    assert "of work, from train to train" in page_of(shop) and "sessions" not in " ".join(
        Page(page_of(shop)).words[:40]
    )
    earlier = {"number": 2, "seconds": 1000.0, "cpu_seconds": 3000.0}
    record = workdir.run_stage(
        make_config(), shop.folder, "train", lambda *_: {"steps": 499, "earlier_sessions": earlier}
    )
    assert record["sessions"] == 3 and 1000 <= record["seconds"] < 1010 and 3000 <= record["cpu_seconds"] < 3010
    assert "earlier_sessions" not in record["summary"]
    assert workdir.done(record).endswith("s, the sum of 3 sessions")
    text = " ".join(Page(page_of(shop)).words)
    assert "16 min" in text and "train in 3 sessions" in text and "train (3 sessions)" in text
    assert "each earlier session up to its last checkpoint" in text


def test_what_is_unknown_on_a_cpu_is_not_called_non_finite(shop):
    lines = [{"step": step, "loss": 1.0, "model_flops_utilisation": None} for step in range(1, 50)]
    (shop.folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert "on-finite" not in page_of(shop)


def test_a_smoke_run_is_called_one(shop):
    assert "smoke run" not in page_of(shop)
    assert "This is a smoke run (:runlocal): it shows that every step works" in page_of(
        shop, name="quickstart:runlocal"
    )


def test_a_model_without_training_that_is_better_stands_in_the_head(shop):
    file = shop.folder / "metrics.json"
    scores = json.loads(file.read_text())
    better = {"metric": "mar@10_capped", "model": "colour_and_edges", "stage": "cosine", "than": ["trained", "chosen"]}
    better |= {"score": 0.819, "than_score": 0.55, "difference": 0.269, "low": 0.1, "high": 0.4}
    file.write_text(json.dumps({**scores, "better_without_training": better}))
    page = page_of(shop)
    assert "scores better than trained/chosen: mar@10_capped 81.90 against 55.00" in page
    assert page.index("scores better than trained/chosen") < page.index("<table")
    assert "fine_tuning.md" in page and "fine_tuning.md" not in page_of(shop, name="x:runlocal")


def test_text_from_the_catalogue_is_escaped(shop):
    page = page_of(shop)
    assert "<script" not in page and "onerror=alert(1)>" not in page and "<i>start" not in page
    alts = [attrs["alt"] for tag, attrs in Page(page).tags if tag == "img"]
    assert any(EVIL in alt for alt in alts)  # complete, dollar sign included
    assert not any(tag == "img" and "onerror" in attrs for tag, attrs in Page(page).tags)


def test_same_directory_gives_the_same_bytes(shop):
    assert page_of(shop) == page_of(shop)


def test_missing_data_is_named(shop):
    for name in ("metrics.json", "metrics.jsonl", "embeddings", "attributes", "rankings", "stages"):
        path = shop.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = " ".join(Page(page_of(shop)).words)
    assert text.count("Not shown") == 6
    ensemble = make_config(search={"steps": (("ensemble", {}),), "members": ("one", "two")})
    text = " ".join(Page(page_of(shop, search=ensemble["search"])).words)
    assert "the members one, two have it in their own work directories" in text and "ensemble of one, two" in text


def test_without_truth_nothing_is_marked(shop):
    shop.catalog.truth = None
    page = page_of(shop)
    assert "Without a ground truth no listing is marked as relevant" in page and "Worst queries" not in page
    assert 'class="item relevant"' not in page and 'class="item other"' not in page


def test_random_and_worst_rows(shop):
    page = page_of(shop)
    ranking, truth = Ranking.load(shop.folder / "rankings" / "trained" / "reranking"), shop.catalog.truth
    recall = {}
    for query, found in enumerate(ranking.item_rows.tolist()):  # naive
        wanted = set(truth.relevant(query).tolist())
        if wanted:
            recall[query] = len(wanted & set(found[:10])) / len(wanted)
    worst = sorted(recall, key=lambda query: (recall[query], shop.catalog.query.ids[query]))[:3]
    page = page.split("<h3>Most improved")[0]
    random, last = page.split("<h3>Worst queries")
    shown = [shop.catalog.query.ids.index(name) for name in re.findall(r'alt="query: (query-\d+)"', last)]
    assert shown == worst
    random = re.findall(r'alt="query: (query-\d+)"', random)
    assert len(random) == 3 and "query-011" not in random  # has no relevant listing
    marks = {kind: page.count(f'class="item {kind}"') for kind in ("relevant", "other", "missed")}
    expected = {"relevant": 0, "other": 0, "missed": 0}
    for query in [int(name[-3:]) for name in random] + worst:
        wanted = set(truth.relevant(query).tolist())
        found = [row for row in ranking.item_rows[query][:10].tolist() if row >= 0]
        expected["relevant"] += sum(row in wanted for row in found)
        expected["other"] += sum(row not in wanted for row in found)
    for query in worst:
        expected["missed"] += min(3, len(set(truth.relevant(query)) - set(ranking.item_rows[query][:10])))
    assert marks == expected
    assert page_of(shop, report={**shop.config["report"], "seed": 1}).split("<h3>Most improved")[0] != page


def test_stage_is_chosen_by_the_config(shop):
    settings = {"rows": 1, "seed": 0}
    assert "Trained network, whitening: the query" in page_of(shop, report={**settings, "stage": "whitening"})
    assert "Colour histogram, cosine: the query" in page_of(shop, report={**settings, "stage": "histogram/cosine"})
    with pytest.raises(InputError, match="report.stage is 'typo'.*trained/reranking"):
        page_of(shop, report={**settings, "stage": "typo"})


def test_ranking_of_another_gallery_is_rejected(shop):
    shop.catalog.gallery.ids[0] = "another"
    with pytest.raises(InputError, match="a different gallery"):
        page_of(shop)


def test_predicted_attributes_sorted_and_agreement_marked(shop):
    section = page_of(shop).split("<h2>Predicted")[1]
    # Listing 5 has only the mined attribute 0 ("<script>..."); predictions are sorted by probability.
    cards = section.split('class="card"')[1:]
    assert len(cards) == 3
    for card in cards:
        predicted = card.split("<h4>mined</h4>")[0]
        assert re.findall(r">(0\.\d\d)<", predicted) == ["0.75", "0.50", "0.25"]
        assert predicted.count('class="agree"') == card.split("<h4>mined</h4>")[1].count('class="agree"') >= 1
    assert "The 3 most probable attributes of each of 6 listings" in section
    assert section.count('aria-label="Share of predictions that are right:') == 1


def test_size_is_bounded(shop, monkeypatch):
    large = page_of(shop)
    shop.catalog.gallery.images = np.random.default_rng(0).integers(0, 256, (30, 300, 300, 3), np.uint8)
    monkeypatch.setattr(report, "MAX_BYTES", len(large) + 150_000)
    assert len(page_of(shop)) < report.MAX_BYTES  # smaller pictures
    monkeypatch.setattr(report, "MAX_BYTES", 10_000)
    with pytest.raises(InputError, match="lower config.report.rows"):
        page_of(shop)


def test_reading_describes_what_each_step_changed():
    def stage(model, name, value):
        return {"model": model, "stage": name, "mar@10_capped": value, "mar@10_capped_se": 0.01}

    scores = [
        stage("histogram", "cosine", 0.2),
        stage("trained", "cosine", 0.5),
        stage("trained", "whitening", 0.582),
        stage("trained", "reranking", 0.567),
    ]
    assert score_table.reading(scores[1:]) == "whitening: +8.2 points of MAR@10 (capped); re-ranking: −1.5 points."
    assert score_table.reading(scores).startswith(
        "Trained network, cosine: +30.0 points of MAR@10 (capped) against the colour histogram. Then whitening: +8.2 p"
    )
    assert score_table.reading(scores[:1]) == "Colour histogram: 20.0 % MAR@10 (capped)."
    assert score_table.reading([]) == "" == score_table.table([])
    table = score_table.table(scores)
    assert table.count("★ ") == 2 and "★ 58.20 <small>± 1.00</small>" in table  # one mark, one mention in the note
    assert "Then whitening: +8.2 points" in table
    assert "–" in score_table.table([*scores, {"model": "x", "stage": "cosine", "mar@10_capped": None}])


def test_rows_picture_frames(shop, tmp_path):
    ranking = Ranking.load(shop.folder / "rankings" / "trained" / "cosine")
    report.rows_picture(shop.catalog, ranking, shop.catalog.truth, [0, 3], tmp_path / "rows.png", columns=6)
    sheet = cv2.imread(str(tmp_path / "rows.png"))[:, :, ::-1]
    for line, row in enumerate([0, 3]):
        wanted = shop.catalog.truth.relevant(row).tolist()
        for rank, item in enumerate(ranking.item_rows[row][:6].tolist()):
            pixel = tuple(sheet[8 + line * 104 + 48, 24 + (rank + 1) * 104 + 1].tolist())
            assert pixel == ((255, 255, 255) if item < 0 else (24, 121, 78) if item in wanted else (196, 67, 43))
    with pytest.raises(InputError, match="cannot write the picture"):
        report.rows_picture(shop.catalog, ranking, None, [0], tmp_path / "missing" / "rows.png")
    shop.catalog.query.ids[0] = "another"
    with pytest.raises(InputError, match="a different catalogue"):
        rows.query_row(shop.catalog, ranking, 0)


def test_page_fits_phone_and_desktop_screens(shop, tmp_path_factory):
    page_of(shop)
    script = (
        "({inner: innerWidth, wide: document.documentElement.scrollWidth, pictures: document.images.length, "
        "broken: [...document.images].filter(one => !one.naturalWidth).length, "
        "styled: getComputedStyle(document.querySelector('.tile')).borderRadius, "
        "line: getComputedStyle(document.querySelector('path.stroke-s1')).stroke, "
        "text: parseFloat(getComputedStyle(document.querySelector('figure text')).fontSize), "
        "seen: [...document.querySelectorAll('.strip')].slice(0, 3).map(strip => [...strip.children].filter(one => "
        "one.getBoundingClientRect().right <= innerWidth).length), "
        "scrolls: [...document.querySelectorAll('.scroll')].map(one => one.tabIndex), "
        "shown: getComputedStyle(document.querySelector('.dot .shown')).visibility})"
    )
    with chromium.page(tmp_path_factory.mktemp("profile")) as page:
        page.open((shop.folder / "report.html").as_uri())
        for width in (390, 1280):
            for dark, line in ((False, "rgb(194, 87, 12)"), (True, "rgb(240, 162, 94)")):
                page.size(width, dark=dark)
                found = page.run(script)
                assert found["inner"] == width and found["wide"] <= width
                assert found["pictures"] > 30 and found["broken"] == 0
                assert found["styled"] == "10px" and found["line"] == line
                assert all(count >= 4 for count in found["seen"]) and 10 in found["seen"]  # without scrolling
                assert set(found["scrolls"]) == {0} and found["shown"] == "hidden"
        place = page.run(
            "(() => { const dot = document.querySelector('.dot'); dot.scrollIntoView({block: 'center'}); "
            "const at = dot.querySelector('circle').getBoundingClientRect(); "
            "return {x: at.x + at.width / 2, y: at.y + at.height / 2}; })()"
        )
        page.send("Input.dispatchMouseEvent", type="mouseMoved", **place)
        page.wait("[...document.querySelectorAll('.dot')].some(dot => dot.matches(':hover'))")
        shown = "document.querySelector('.dot:hover .shown')"
        assert page.run(f"getComputedStyle({shown}).visibility") == "visible"
        assert page.run(f"{shown}.querySelector('image').getBoundingClientRect().width") > 100
        assert page.problems == []


def test_the_conditions_of_a_search_are_explained_result_by_result(shop):
    gallery = shop.catalog.gallery
    object.__setattr__(gallery, "columns", {"colour": np.arange(len(gallery), dtype=np.int32) % 3 - 1})
    object.__setattr__(gallery, "column_names", {"colour": ["<red>", "blue"]})
    kwargs = {"fields": ("colour",), "conditions": {"preferred": (("colour", ("<red>",)),)}}
    search = {"steps": (), "members": (), "index": "attribute", "index_kwargs": kwargs}
    page = page_of(shop, search=search)
    assert "<h2>Conditions</h2>" in page and "preferred colour: &lt;red&gt;." in page
    assert "yes, &lt;red&gt;" in page and "no (relaxed)" in page
    assert "<h2>Conditions</h2>" not in page_of(shop)


def test_conditions_of_single_queries_are_explained(shop):
    catalog = shop.catalog
    object.__setattr__(catalog.gallery, "columns", {"colour": np.arange(len(catalog.gallery), dtype=np.int32) % 2})
    object.__setattr__(catalog.gallery, "column_names", {"colour": ["red", "blue"]})
    wishes = ['{"excluded": [{"field": "colour", "values": ["red"]}]}', *["  "] * (len(catalog.query) - 1)]
    words = ["", "the same -blue", *[""] * (len(catalog.query) - 2)]
    object.__setattr__(catalog.query, "columns", {"wishes": wishes, "words": words})
    kwargs = {"fields": ("colour",), "conditions_column": "wishes", "words_column": "words"}
    search = {"steps": (), "members": (), "index": "attribute", "index_kwargs": kwargs}
    page = page_of(shop, search=search, report={"rows": 20, "seed": 0, "stage": ""})
    assert "no conditions; beside that each query has its own" in page and "excluded: colour: red" in page
    for colour in ("red", "blue"):
        assert page.count(f'<th scope="col">excluded: colour: {colour}</th>') == 1
    wishes[0], words[1] = " ", "the same"
    assert "<h2>Conditions</h2>" not in page_of(shop, search=search, report={"rows": 20, "seed": 0, "stage": ""})


def compared(shop, tmp_path, *more):
    """Returns the page of the shop's run against one whose rankings put every relevant listing first."""
    better = tmp_path / "better <b>"
    shutil.copytree(shop.folder, better, ignore=shutil.ignore_patterns("better*"))
    shop.config["search"]["steps"] = ()
    workdir.write_settings(shop.config, better)
    for folder in (better / "rankings" / "trained").iterdir():
        ranking = Ranking.load(folder)
        rows = ranking.item_rows.copy()
        for query in range(len(rows)):
            wanted = shop.catalog.truth.relevant(query).tolist()
            rows[query] = [*wanted, *(row for row in range(30) if row not in wanted)][: rows.shape[1]]
        scores = np.tile(-np.arange(rows.shape[1], dtype=np.float32), (len(rows), 1))
        Ranking(ranking.query_ids, rows, scores, ranking.gallery_sha256).save(folder)
    door.main(["report", "--compare", str(shop.folder), str(better), f"--out={tmp_path / 'both.html'}", *more])
    return (tmp_path / "both.html").read_text("utf-8")


def test_two_runs_on_one_page(shop, tmp_path, capsys):
    page = compared(shop, tmp_path)
    out = capsys.readouterr().out
    assert "the new side is better" in out and str(tmp_path / "both.html") in out
    parsed = Page(page)
    text = " ".join(parsed.words)
    assert "<b>" not in "".join(re.findall("<h1>.*?</h1>", page)) and "better <b>" in text
    assert {"script", "link"}.isdisjoint(tag for tag, _ in parsed.tags)
    for words in (
        "All queries, 11 of them",
        "Report half",
        "the new side is better",
        "search.steps",
        "Recall at k",
        "Loss",
        "1 min 15 s",
        "Better by better <b>",
    ):
        assert words in text, words
    assert f"Better by {shop.folder.name}" not in text  # no query is found better there
    assert page.count('class="row"') == 3 and "100.00" in text
    same = compared_with_itself(shop, tmp_path, capsys)
    assert "is the same on both sides" in same and "every query has the same recall" in same
    assert "Both runs have the same settings" in same


def compared_with_itself(shop, tmp_path, capsys):
    door.main(["report", "--compare", str(shop.folder), str(shop.folder), f"--out={tmp_path / 'same.html'}"])
    return (tmp_path / "same.html").read_text("utf-8")


def test_two_stages_of_one_run(shop, tmp_path):
    both = [
        "report",
        "--compare",
        str(shop.folder),
        str(shop.folder),
        "--stages",
        "histogram/cosine",
        "trained/whitening",
    ]
    door.main(both)
    page = (shop.folder / f"compared_with_{shop.folder.name}.html").read_text("utf-8")
    assert "Colour histogram, cosine" in page and "Trained network, whitening" in page
    for words, match in (
        ([*both, "--config=quickstart"], "no --config"),
        ([*both, "--again"], "no --again"),
        ([*both[:4], "--stages", "typo", "whitening"], "'typo'"),
        (["report", "--stages", "a", "b"], "options of a comparison"),
    ):
        with pytest.raises(InputError, match=match):
            given = door.parse(words)
            report.main(given)
    shop.catalog.truth = None
    with pytest.raises(InputError, match="has no ground truth, so nothing can be compared"):
        report.main(door.parse(both))
