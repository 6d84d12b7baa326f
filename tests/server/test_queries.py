"""`retrieval-jax query` finds what the service finds."""

import csv
import json
import types

import pytest

from retrieval_jax import __main__ as door
from retrieval_jax import query
from retrieval_jax.data.pictures.sources import Cached, FileImages
from retrieval_jax.errors import InputError


def test_the_table_has_what_the_service_finds(client, finished, photo, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(photo)
    (folder / "b.png").write_bytes(b"no picture")
    (folder / "c.png").write_bytes(photo)
    words = [str(folder), f"--workdir={finished}", f"--out={tmp_path / 'found.csv'}", "--k=5"]
    query.main(door.tree().parse_args(["query", *words]))
    said = capsys.readouterr()
    assert "3 pictures = 2 searched by + 1 that cannot be read" in said.out
    assert said.err.splitlines()[0] == f"query: loading {finished}: about half a minute" and "20 listings" in said.err
    with open(tmp_path / "found.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = client.post("/v1/search", files={"picture": photo}, data={"request": json.dumps({"k": 5})}).json()[
        "results"
    ]
    for name, own in (("a.png", rows[:5]), ("c.png", rows[6:])):
        assert all(row["picture"].endswith(name) for row in own)
        assert [row["id"] for row in own] == [hit["id"] for hit in found]
        assert [row["title"] for row in own] == [hit["title"] for hit in found]
        assert all(row["product"].startswith("product-") or not row["product"] for row in own)
    assert rows[5]["picture"].endswith("b.png") and "not an image file" in rows[5]["problem"] and not rows[5]["id"]


def test_conditions_hold_and_other_words_are_refused(client, finished, photo, tmp_path):
    (tmp_path / "a.png").write_bytes(photo)
    colour = client.get("/v1/facets").json()["fields"]["colour"][0]
    ((_, found, _),) = query.find(finished, [tmp_path / "a.png"], 20, words=f"colour:{colour['value']}")
    assert len(found) == colour["listings"]
    with pytest.raises(InputError, match="not a condition"):
        list(query.find(finished, [tmp_path / "a.png"], 5, words="red shirt"))
    with pytest.raises(InputError, match="no stage"):
        list(query.find(finished, [tmp_path / "a.png"], 5, "nothing"))


def test_a_result_has_the_file_of_its_picture_and_its_product_where_the_catalogue_has_them():
    images, hit = FileImages("/shop", ["a/1.jpg", "a/2.jpg"]), types.SimpleNamespace(place=1, row=0, score=0.5)
    for pictures, columns, data, wanted in (
        (images, {}, {"source": "table", "kwargs": {"files": "products.csv"}}, ("/shop/a/2.jpg", "SH-7")),
        (Cached(images, 1000), {"product": ["p0", "p1"]}, {"source": "table"}, ("/shop/a/2.jpg", "p1")),
        ([None, None], {}, {"source": "table", "kwargs": {"files": {"gallery": "a.csv"}}}, ("", "")),
    ):
        split = types.SimpleNamespace(images=pictures, columns=columns)
        gallery = types.SimpleNamespace(names=["SH-7-2"], rows=[1], split=split, title=lambda _: "t")
        version = types.SimpleNamespace(gallery=gallery, config={"data": data})
        assert query._result(version, hit) == (1, "SH-7-2", 0.5, "t", *wanted)
