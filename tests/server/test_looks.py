"""Looks over a finished run of outfits: the API, the page, and what such a run cannot be searched by."""

import base64
import io
import json

import jax
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import chromium
import tiny_outfits
from retrieval_jax import looks, query
from retrieval_jax.data import loading
from retrieval_jax.errors import InputError
from retrieval_jax.server import app, runs
from search_page import SETTLED, service


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Config and work directory of a finished run."""
    jax.config.update("jax_disable_most_optimizations", True)
    folder = tmp_path_factory.mktemp("runs") / "outfits"
    yield tiny_outfits.save(folder), folder
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def wanted(run):
    """The gallery of the run as `looks` reads it."""
    return looks.of_run(run[1], colours="colour", conditions=("colour",))


@pytest.fixture(scope="module")
def asking(run):
    """A client of the service over the run."""
    with TestClient(app.make(runs.Runs([run[1]], watched=0)), raise_server_exceptions=False) as made:
        yield made


def ask(asking, expected=200, **body):
    answer = asking.post("/v1/looks", json=body)
    assert answer.status_code == expected, answer.text
    return answer.json()


def png(image) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def start_of(wanted):
    """Returns a listing, its type, and two other types."""
    row = next(row for row, kind in enumerate(wanted.types) if kind)
    return wanted.gallery.ids[row], wanted.types[row], [kind for kind in wanted.kinds if kind != wanted.types[row]][:2]


def ids(look):
    return {item["slot"]: item["listing"]["id"] for item in look["items"]}


def test_looks_are_those_that_the_library_completes(asking, wanted):
    listing, _, slots = start_of(wanted)
    found = ask(asking, listings=[listing], slots=slots, k=2, vary="colour")
    assert [ids(look) for look in found["looks"]] == [look.ids for look in wanted.complete([listing], slots, 2)]
    assert found["start"][0]["id"] == listing and found["note"] == ""
    (served,) = asking.get("/v1/runs").json()
    assert served["completes"] == wanted.kinds and "complete looks" in served["cannot"]["pictures"]
    colour = found["looks"][0]["items"][0]["listing"]["attributes"]["colour"][0]["value"]
    clause = [{"field": "colour", "values": [colour]}]
    (look,) = ask(asking, listings=[listing], slots=slots[:1], k=1, conditions={"excluded": clause})["looks"]
    assert look["items"][0]["listing"]["attributes"]["colour"][0]["value"] != colour
    everything = {"field": "colour", "values": wanted.table.values()["colour"]}
    none = ask(asking, listings=[listing], slots=slots, conditions_of={slots[0]: {"excluded": [everything]}})
    assert none["note"].startswith(f"no listing fits {slots[0]}") and slots[0] not in ids(none["looks"][0])


def test_a_photo_is_embedded_by_its_type(asking, run, wanted):
    listing, kind, slots = start_of(wanted)
    split = loading.load(run[0].data).split("gallery")
    photo = split.images[list(split.ids).index(listing)]
    (look,) = wanted.complete([], slots, 1, photos=looks.photos(run[1], [photo], [kind]))
    coded = base64.b64encode(png(photo)).decode()
    (found,) = ask(asking, picture=coded, type=kind, slots=slots, k=1)["looks"]
    assert ids(found) == look.ids and found["score"] == pytest.approx(look.score, abs=1e-4)
    upload = {"files": {"picture": png(photo)}, "data": {"request": json.dumps({"type": kind, "slots": slots, "k": 1})}}
    assert asking.post("/v1/looks", **upload).json()["looks"] == [found]
    assert "type='nothing'" in ask(asking, 422, picture=coded, type="nothing", slots=slots)["error"]
    assert "about a picture" in ask(asking, 422, type=kind, listings=[listing], slots=slots)["error"]


def test_what_cannot_be_completed_or_searched_gets_a_sentence(asking, client, run, wanted, photo, tmp_path):
    listing, _, slots = start_of(wanted)
    coded = base64.b64encode(photo).decode()
    wish = {"preferred": [{"field": "colour", "values": ["red"]}]}
    for body, sentence in (
        ({"listings": ["other"], "slots": slots}, "has no listing 'other'"),
        ({"slots": slots}, "nothing to start from"),
        ({"listings": [listing], "slots": ["nothing"]}, "expected one of"),
        ({"listings": [listing], "slots": slots, "vary": "colr"}, "did you mean"),
        ({"listings": [listing], "slots": slots, "conditions_of": {"nothing": {}}}, "conditions_of has 'nothing'"),
        ({"listings": [listing], "slots": slots, "conditions": wish}, "give no preferred ones"),
        ({"listings": [listing], "slots": []}, "slots"),
    ):  # fmt: skip
        assert sentence in ask(asking, 422, **body)["error"]
    assert "completes no looks" in ask(client, 422, listings=["x"], slots=["shoes"])["error"]
    assert "by its type" in asking.post("/v1/search", json={"picture": coded}).json()["error"]
    (tmp_path / "photo.png").write_bytes(photo)
    with pytest.raises(InputError, match="embeds a picture by its type"):
        list(query.find(run[1], [tmp_path / "photo.png"], 3))


def test_the_page_completes_looks_from_a_listing_and_from_a_photo(run, wanted, photo, tmp_path):
    listing, kind, slots = start_of(wanted)
    (tmp_path / "photo.png").write_bytes(photo)
    with service(run[1]) as address, chromium.page(tmp_path / "profile") as page:
        page.size(1280)
        page.open(address)
        page.wait(f"document.querySelectorAll('#results .hit').length && {SETTLED}")
        assert page.run("$('file').disabled && !$('look_box').hidden && $('look_vary').value") == "colour"
        page.run("document.querySelector('[data-act=look]').click()")
        assert page.run("$('look_box').open && document.querySelectorAll('#look_start .chip').length") == 1
        for slot in slots:
            page.run(f"document.querySelector('#look_slots input[value={json.dumps(slot)}]').click()")
        page.run("look_go.click()")
        page.wait("document.querySelectorAll('#looks .look').length === 4")
        assert page.run("document.querySelectorAll('#looks .hit img').length") > 4
        shared = page.run("location.href")
        page.run("document.querySelector('#look_start .chip button').click()")
        page.run("look_go.click()")
        page.wait("!$('look_error').hidden && $('look_error').textContent.includes('nothing to start from')")
        assert page.run("$('looks').children.length") == 0  # none that would look like an answer
        page.choose("#look_file", tmp_path / "photo.png")
        page.wait("!$('look_photo').hidden")
        page.run(f"look_type.value = {json.dumps(kind)}; looks.replaceChildren(); look_go.click()")
        page.wait("document.querySelectorAll('#looks .look').length === 4 && $('look_error').hidden")
        page.open("about:blank")
        page.open(shared)
        page.wait("document.querySelectorAll('#looks .look').length === 4")
        page.run("look_vary.value = ''; look_vary.dispatchEvent(new Event('change')); look_conditions.click()")
        page.run("$('words').value = '-colour:black'; go.click()")
        page.wait(f"shown[0].answer.conditions.excluded && {SETTLED}")
        page.run("look_go.click()")
        page.wait("document.querySelectorAll('#looks .look').length && $('looks').ariaBusy === 'false'")
        assert page.run("meant().excluded[0].values") == ["black"]
        names = "[...document.querySelectorAll('#looks .name')].map((one) => one.textContent)"
        there, other = page.run(names), page.run("location.href")
        page.run("history.back()")
        page.wait("asked.narrowed === '' && document.querySelectorAll('#looks .look').length === 4")
        page.open("about:blank")
        page.open(other)
        page.wait("document.querySelectorAll('#looks .look').length && $('looks').ariaBusy === 'false'")
        assert page.run(names) == there and page.run("look_vary.value + look_conditions.checked") == "true"
