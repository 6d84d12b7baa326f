"""The API over a finished run: what is found, why, and the thumbs, metrics and logs of a service."""

import base64
import dataclasses
import hashlib
import json

import numpy as np
import pytest
from fastapi.testclient import TestClient

from retrieval_jax import inference
from retrieval_jax.data.clicks import importing, reading
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError
from retrieval_jax.index import attribute, exact
from retrieval_jax.server import app, guard, judgements, messages, runs, searching


def ask(client, expected=200, **body):
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == expected, answer.text
    if expected == 200:
        messages.Found.model_validate_json(answer.content, extra="forbid")  # the service does not check what it sends
    return answer.json()


def test_runs_say_what_they_can_be_searched_by(client):
    ask(client)
    (run,) = client.get("/v1/runs").json()
    assert run["name"] == "tiny" and run["loaded"] and run["listings"] == 20 and not run["exported"]
    assert run["stages"] == ["cosine", "whitening", "reranking"] and run["note"] == run["problem"] == ""
    assert run["searches"] == ["pictures", "words", "words beside pictures"] and run["predicts"]


def test_a_picture_finds_what_the_model_and_exact_search_find(client, finished, photo, tmp_path):
    (tmp_path / "photo.png").write_bytes(photo)
    vector = inference.load(finished).embed([tmp_path / "photo.png"])
    gallery = Embeddings.load(finished / "embeddings" / "trained" / "gallery")
    wanted = exact.Index(gallery).search(vector, 5)
    found = client.post(
        "/v1/search", files={"picture": photo}, data={"request": json.dumps({"k": 5, "stage": "cosine"})}
    ).json()
    assert [one["id"] for one in found["results"]] == [gallery.ids[row] for row in wanted.item_rows[0].tolist()]
    assert np.allclose([one["score"] for one in found["results"]], wanted.scores[0], atol=1e-5)
    assert [one["place"] for one in found["results"]] == [1, 2, 3, 4, 5] and found["matches"] == 20
    assert all(one["why"]["parts"]["picture"]["share"] == 1 for one in found["results"])
    encoded = base64.b64encode(photo).decode()
    for picture in (encoded, f"data:image/png;base64,{encoded}"):
        again = ask(client, picture=picture, k=5, stage="cosine")
        assert again["results"] == found["results"]


def test_stages_are_those_of_the_run(client, photo):
    encoded = base64.b64encode(photo).decode()
    plain, white, reranked = (ask(client, picture=encoded, stage=one)["results"] for one in
                              ("cosine", "whitening", "reranking"))  # fmt: skip
    assert plain != white and {one["id"] for one in white} == {one["id"] for one in reranked}
    assert all(one["why"]["moved"] is None for one in white)
    places = {one["id"]: one["place"] for one in white}
    assert all(one["why"]["moved"] == places[one["id"]] - one["place"] for one in reranked)


def test_a_box_is_the_part_of_the_picture_that_is_searched_by(client, photo):
    encoded = base64.b64encode(photo).decode()
    whole = ask(client, picture=encoded, stage="cosine")
    part = ask(client, picture=encoded, stage="cosine", box=[0.0, 0.0, 0.5, 0.5])
    assert part["box"] == [0, 0, 0.5, 0.5] and part["results"] != whole["results"]
    assert ask(client, picture=encoded, stage="cosine", box=[0, 0, 1, 1])["results"] == whole["results"]
    assert "ymin < ymax" in ask(client, 422, picture=encoded, box=[0.5, 0, 0.5, 1])["error"]


def test_without_a_box_a_run_of_regions_finds_its_own(client, finished, photo):
    served = runs.Runs([finished], watched=0)
    run = served.get()
    found = {"box": [0.0, 0.25, 0.5, 0.75]}
    finds = dataclasses.replace(run.get().networks, boxes=lambda images: [found["box"]] * len(images))
    run.loaded = dataclasses.replace(run.loaded, networks=finds)
    encoded = base64.b64encode(photo).decode()
    with TestClient(app.make(served), raise_server_exceptions=False) as made:
        answer = ask(made, picture=encoded, stage="cosine")
        assert answer["box"] == found["box"]
        wanted = ask(client, picture=encoded, stage="cosine", box=found["box"])
        assert answer["results"] == wanted["results"]
        whole = ask(client, picture=encoded, stage="cosine")["results"]
        assert ask(made, picture=encoded, stage="cosine", box=[0, 0, 1, 1])["results"] == whole
        found["box"] = [np.nan] * 4
        assert ask(made, picture=encoded, stage="cosine")["box"] is None


def test_words_search_titles_and_can_be_conditions(client):
    everything = ask(client, k=20)["results"]
    title = everything[3]["title"]
    found = ask(client, words=title)
    assert found["scored_by"] == "bm25" and found["results"][0]["title"] == title
    colour = everything[3]["attributes"]["colour"][0]["value"]
    among = ask(client, words=f"{title.split()[0]} -colour:{colour}", k=20)
    assert all(colour not in [one["value"] for one in hit["attributes"].get("colour", [])] for hit in among["results"])
    assert among["conditions"] == {"excluded": [{"field": "colour", "values": [colour]}]}


def test_a_picture_and_words_are_fused_and_say_their_shares(client, photo):
    title = ask(client, k=1)["results"][0]["title"]
    found = ask(client, picture=base64.b64encode(photo).decode(), words=title, weight=10)
    assert found["scored_by"] == "fusion" and found["results"][0]["title"] == title
    parts = found["results"][0]["why"]["parts"]
    assert parts.keys() == {"picture", "words"} and parts["words"]["share"] > 0.5
    assert np.isclose(sum(part["share"] for part in parts.values()), 1)


def test_more_and_less_like_a_listing(client):
    one, other = (hit["id"] for hit in ask(client, k=2)["results"])
    more = ask(client, like=[one], k=20)
    assert one not in [hit["id"] for hit in more["results"]] and len(more["results"]) == more["matches"] == 19
    less = ask(client, like=[one], unlike=[other], k=20)
    assert len(less["results"]) == 18
    assert set(less["results"][0]["why"]["parts"]) == {f"like {one}", f"unlike {other}"}
    assert "remove it from one" in ask(client, 422, like=[one], unlike=[one])["error"]
    assert "says nothing about what is wanted" in ask(client, 422, unlike=[one])["error"]


def test_conditions_hold_and_facets_count_them(client, photo):
    facets = client.get("/v1/facets").json()
    value = facets["fields"]["colour"][0]
    given = {"required": [{"field": "colour", "values": [value["value"]]}]}
    for body in ({}, {"picture": base64.b64encode(photo).decode()}):
        found = ask(client, conditions=given, k=20, **body)
        assert found["matches"] == len(found["results"]) == value["listings"]
        assert all(hit["why"]["reasons"][0]["state"] == "matched" for hit in found["results"])
        assert f"is met by {value['listings']} listing" in found["note"]
    narrowed = client.get("/v1/facets", params={"conditions": json.dumps(given)}).json()
    assert narrowed["matches"] == value["listings"] and narrowed["fields"]["colour"] == facets["fields"]["colour"]
    preferred = {"preferred": given["required"]}
    found = ask(client, conditions=preferred, k=20)
    assert len(found["results"]) == 20 and "relaxed" in found["note"]
    states = [hit["why"]["reasons"][0]["state"] for hit in found["results"]]
    assert states == ["matched"] * value["listings"] + ["relaxed"] * (20 - value["listings"])


def test_searches_that_are_computed_together_equal_those_that_wait_alone(client, finished):
    gallery = runs.Run("tiny", finished).get().gallery
    ids, titles = gallery.embeddings.ids, [gallery.title(row) for row in range(20)]
    colours = [{"required": [{"field": "colour", "values": [value]}]} for value in gallery.values["colour"][:3]]
    queries = []
    for number in range(24):
        words = f"{titles[number % 20].split()[0]} the" if number % 3 else ""
        like = (ids[number % 20],) if number % 2 else ()
        conditions = attribute.parse(colours[number % 3] if number % 4 == 1 else None)
        queries.append(searching.Query(conditions, 5, number % 2, words=words, like=like))
    queries[5] = dataclasses.replace(queries[5], like=("no such",))
    key = gallery, gallery.stages[0]
    for query, found in zip(queries, searching.run(key, queries), strict=True):
        (alone,) = searching.run(key, [query])
        if isinstance(alone, InputError):
            assert str(alone) == str(found) and query is queries[5]
        else:
            assert [dataclasses.asdict(hit) for hit in found.hits] == [dataclasses.asdict(hit) for hit in alone.hits]
            assert (found.matches, found.scored_by, found.note) == (alone.matches, alone.scored_by, alone.note)


def test_a_search_by_words_that_is_too_large_fails_alone_and_whole_rankings_are_made_one_by_one(finished, monkeypatch):
    gallery = runs.Run("tiny", finished).get().gallery
    real, sizes = gallery.lexical().search, []

    def search(words, k, among=None):
        sizes.append((len(words), k))
        if "shirt" in words:
            raise InputError("too large")
        return real(words, k, among=among)

    monkeypatch.setattr(gallery.lexical(), "search", search, raising=False)
    preferred = attribute.parse({"preferred": [{"field": "colour", "values": [gallery.values["colour"][0]]}]})
    whole = [searching.Query(preferred, 5, words=words) for words in ("the", "shirt", "a")]
    few = [searching.Query(attribute.parse(None), 5, words=words) for words in ("the", "a")]
    found = searching.run((gallery, gallery.stages[0]), [*whole, *few])
    assert sizes == [(1, 20), (1, 20), (1, 20), (2, 20)]  # as many as BM25 fuses, which are all
    assert [isinstance(one, InputError) for one in found] == [False, True, False, False, False]


@pytest.mark.parametrize("body", [{}, {"words": "the"}, {"stage": "cosine"}, {"stage": "reranking"}])
def test_pages_are_parts_of_one_list(client, photo, body):
    if "stage" in body:
        body = {**body, "picture": base64.b64encode(photo).decode()}
    whole = ask(client, k=20, **body)["results"]
    parts = [hit for offset in range(0, 20, 7) for hit in ask(client, k=7, offset=offset, **body)["results"]]
    assert [(hit["place"], hit["id"], hit["score"]) for hit in parts] == [
        (hit["place"], hit["id"], hit["score"]) for hit in whole
    ]


def test_predicted_attributes_of_the_picture(client, photo):
    found = ask(client, picture=base64.b64encode(photo).decode(), predict=True)["predicted"]
    assert len(found) > 0 and all(0 <= one["probability"] <= 1 and one["field"] == "mined" for one in found)
    assert [one["probability"] for one in found] == sorted((one["probability"] for one in found), reverse=True)


def test_listings_and_thumbnails(client):
    hit = ask(client, k=1)["results"][0]
    listing = client.get(f"/v1/listings/{hit['id']}").json()
    assert listing["title"] == hit["title"] and listing["attributes"] == hit["attributes"]
    picture = client.get(hit["picture"])
    assert picture.headers["content-type"] == "image/jpeg" and picture.content.startswith(b"\xff\xd8")
    again = client.get(hit["picture"], headers={"if-none-match": picture.headers["etag"]})
    assert again.status_code == 304 and not again.content


def test_only_pictures_that_fail_have_a_line_in_the_log_and_all_are_counted(client, logged):
    picture = ask(client, k=1)["results"][0]["picture"]
    before, route = len(logged), "/v1/pictures/{listing:path}"
    assert [client.get(path).status_code for path in (picture, "/static/said.js", "/v1/pictures/none")] == [
        200,
        200,
        404,
    ]
    lines = [(event["route"], event["status"]) for event in logged[before:]]
    assert lines == [(route, 404)] and f'requests_total{{route="{route}",status="200"}}' in client.get("/metrics").text


def test_a_thumb_becomes_records_that_the_click_log_reads(client, finished):
    found = ask(client, words=ask(client, k=1)["results"][0]["title"], k=3)
    shown = [hit["id"] for hit in found["results"]]
    body = {"listing": shown[1], "search": found["search"], "words": found["words"], "place": 2, "shown": shown}
    assert client.post("/v1/judgements", json={**body, "verdict": "up"}).json() == {"written": 5, "trains": True}
    assert client.post("/v1/judgements", json={**body, "verdict": "wrong"}).json() == {"written": 2, "trains": True}
    log = reading.read([finished / judgements.FILE])
    kinds = [(event.kind, event.product, event.position) for event in log.events]
    assert kinds == [
        ("query", "", -1),
        *(("impression", listing, place) for place, listing in enumerate(shown, 1)),
        ("click", shown[1], 2),
        ("query", "", -1),
        ("wrong", shown[1], 2),
    ]
    assert not log.reasons and {event.text for event in log.events if event.kind == "query"} == {found["words"]}
    assert client.post("/v1/judgements", json={**body, "verdict": "up", "listing": "no such"}).status_code == 422
    for verdict in ("maybe", "down"):
        assert client.post("/v1/judgements", json={**body, "verdict": verdict}).status_code == 422


def test_a_judgement_of_a_search_by_a_picture_or_listings_names_them_and_is_not_a_typed_query(client, finished, photo):
    first = ask(client, k=1)["results"][0]
    by_picture = ask(client, picture=base64.b64encode(photo).decode(), words=first["title"], k=3)
    assert by_picture["picture"] == hashlib.sha256(photo).hexdigest() and ask(client, k=1)["picture"] == ""
    before = len((finished / judgements.FILE).read_text().splitlines()) if (finished / judgements.FILE).exists() else 0
    common = {"verdict": "wrong", "listing": by_picture["results"][0]["id"], "place": 1}
    for search, more in (
        (by_picture, {"picture": by_picture["picture"], "words": by_picture["words"]}),
        (ask(client, like=[first["id"]]), {"like": [first["id"]]}),
    ):
        answer = client.post("/v1/judgements", json={**common, **more, "search": search["search"]})
        assert answer.json() == {"written": 2, "trains": False}
    lines = [json.loads(line) for line in (finished / judgements.FILE).read_text().splitlines()[before:]]
    given = {"picture_sha256": by_picture["picture"], "words": by_picture["words"]}
    assert [line.get("query_attributes") for line in lines] == [given, None, {"listings": [first["id"]]}, None]
    assert [line.get("action_name") for line in lines] == [None, "wrong", None, "wrong"]
    assert not any("user_query" in line for line in lines)
    counts = importing.load([finished / judgements.FILE]).counts["set_aside"]
    assert counts["not by words alone"] == 4
    for more in ({"picture": "x"}, {"like": ["no such"]}):
        assert client.post("/v1/judgements", json={**common, **more, "search": "0"}).status_code == 422


def test_a_judgement_that_cannot_be_written_names_no_folder(client, finished, logged, monkeypatch):
    def fails(folder, _):
        raise InputError(f"{folder} is read-only")

    monkeypatch.setattr(judgements, "append", fails)
    body = {"listing": ask(client, k=1)["results"][0]["id"], "search": "ab", "verdict": "up", "place": 1}
    answer = client.post("/v1/judgements", json=body)
    assert answer.status_code == 503 and str(finished) not in answer.text
    assert {"event": "judgement failed", "run": "tiny", "problem": f"{finished} is read-only"} in logged


def test_the_page_takes_links_with_names_of_others_and_the_api_does_not(client):
    assert client.get("/?utm_source=x").status_code == 200
    assert client.get("/v1/runs?utm_source=x").status_code == 422


def test_metrics_health_description_and_log(client, logged):
    ask(client, words="secret words")
    assert client.get("/healthz").json() == {"status": "ok"}
    text = client.get("/metrics").text
    assert 'retrieval_requests_total{route="/v1/search",status="200"}' in text and "retrieval_batch_size" in text
    described = client.get("/v1/openapi.json").json()
    assert described["openapi"].startswith("3.") and "/v1/search" in described["paths"]
    body = described["paths"]["/v1/search"]["post"]["requestBody"]["content"]
    assert body.keys() == {"application/json", "multipart/form-data"}
    names = set(described["components"]["schemas"])
    assert all(one.rpartition("/")[2] in names for one in _references(described))
    lines = json.dumps([event for event in logged if event["event"] == "request"])
    assert "/v1/search" in lines and "secret" not in lines and "gallery-" not in lines


def _references(value):
    if isinstance(value, dict):
        yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
        value = list(value.values())
    for one in value if isinstance(value, list) else ():
        yield from _references(one)


def test_every_answer_has_a_strict_policy(client):
    for path in ("/", "/static/search.js", "/v1/runs", "/nowhere"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == guard.POLICY and headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
    page = client.get("/").text
    assert "http://" not in page and "https://" not in page and "style=" not in page and "<script>" not in page
