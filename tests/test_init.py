"""The verb init: what it prints, the config that it writes, and a run of that config."""

import json
import shlex

import numpy as np
import pytest

import shop_exports
import tiny
from retrieval_jax import __main__ as door
from retrieval_jax import init, mine, run, train
from retrieval_jax.data import loading
from retrieval_jax.errors import InputError
from retrieval_jax.workdir import config_files

FOUND = shop_exports.products()
PICTURES = sum(product.pictures for product in FOUND)


def _init(folder, *words):
    init.main(door.tree().parse_args(["init", *map(str, words)]))


@pytest.mark.parametrize("kind", ["shopify", "magento", "german", "chinese", "json_lines", "named_files"])
def test_it_writes_a_config_that_loads_the_catalogue(tmp_path, capsys, kind):
    export = shop_exports.KINDS[kind](FOUND)
    table, folder = shop_exports.write(export, tmp_path / "a shop")
    _init(tmp_path, table, f"--images={folder}", f"--out={tmp_path / 'a shop' / 'shop.py'}")
    printed = capsys.readouterr().out
    assert f"rows      {export.rows + export.aside} = 14 products" in printed
    assert f" = {PICTURES} found" in printed and "query 3, gallery 26" in printed
    assert "docs/fine_tuning.md" in printed
    (advised,) = [line for line in printed.splitlines() if line.startswith("  retrieval-jax")]
    assert shlex.split(advised) == ["retrieval-jax", "run", f"--config={tmp_path / 'a shop' / 'shop.py'}"]
    config = config_files.load(tmp_path / "a shop" / "shop.py")
    catalog = loading.load(config.data)
    assert len(catalog.query) + len(catalog.gallery) == PICTURES and catalog.truth is not None
    assert config.search.steps == (("chosen", {}),) and config.mine.threshold < 10


def test_the_config_moves_with_its_folder(tmp_path):
    table, folder = shop_exports.write(shop_exports.torgovlya(FOUND), tmp_path / "here")
    _init(tmp_path, table, f"--images={folder}")
    before = loading.load(config_files.load(tmp_path / "here" / "tovary.py").data)
    (tmp_path / "here").rename(tmp_path / "there")
    after = loading.load(config_files.load(tmp_path / "there" / "tovary.py").data)
    assert before.query.ids == after.query.ids and after.gallery.images[0].shape == (24, 24, 3)


def test_it_says_what_every_column_is_and_what_was_seen(tmp_path, capsys):
    table, folder = shop_exports.write(shop_exports.torgovlya(FOUND), tmp_path)
    _init(tmp_path, table, f"--images={folder}")
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert "product      in every row, 14 different, such as 'А-001'" in lines["Артикул"]
    assert "own key" in lines["Код"] and "category" in lines["Категория"] and "title" in lines["Наименование"]
    assert "paths of pictures" in lines["Фото"] and "numbers, such as '65,95'" in lines["Цена"]
    text = (tmp_path / "tovary.py").read_text()
    assert 'product="Артикул"' in text and "# Артикул: in every row" in text and 'encoding="cp1251"' in text


def test_pictures_that_are_only_named_by_address_are_to_be_fetched(tmp_path, capsys):
    table, folder = shop_exports.write(shop_exports.shopify(FOUND), tmp_path, images="elsewhere")
    _init(tmp_path, table, f"--images={tmp_path / 'pictures'}")
    printed = capsys.readouterr().out
    assert f"none of them is in {tmp_path / 'pictures'} yet" in printed
    fetch, then = [line.strip() for line in printed.splitlines() if line.startswith("  retrieval-jax")]
    assert fetch == f"retrieval-jax pictures {table} --out={tmp_path / 'pictures'}" and then.startswith(
        "retrieval-jax run"
    )
    config = config_files.load(tmp_path / "products_export_1.py")
    with pytest.raises(InputError, match="no such folder of pictures"):
        loading.load(config.data)
    folder.rename(tmp_path / "pictures")  # as if they had been fetched
    assert len(loading.load(config.data).gallery)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "pictures").rename(folder / "away"), "no such folder of pictures"),
        (lambda folder: (folder / "tovary.py").write_text(""), "exists, and may have been edited"),
        (lambda folder: (folder / "tovary.csv").unlink(), "there is no such file"),
        (lambda folder: [file.unlink() for file in (folder / "pictures").iterdir()], "none of them is in .*pictures"),
    ],
)
def test_what_it_refuses(tmp_path, change, says):
    table, folder = shop_exports.write(shop_exports.torgovlya(FOUND), tmp_path)
    change(tmp_path)
    with pytest.raises(InputError, match=says):
        _init(tmp_path, table, f"--images={folder}")
    assert not (tmp_path / "tovary.py").exists() or (tmp_path / "tovary.py").read_text() == ""


def test_force_overwrites_and_a_config_is_a_python_file_in_a_folder(tmp_path):
    table, folder = shop_exports.write(shop_exports.torgovlya(FOUND), tmp_path)
    (tmp_path / "tovary.py").write_text("mine")
    _init(tmp_path, table, f"--images={folder}", "--force")
    assert "get_config" in (tmp_path / "tovary.py").read_text()
    for out, says in (("shop.txt", "ends in .py"), ("no/shop.py", "is not a folder")):
        with pytest.raises(InputError, match=says):
            _init(tmp_path, table, f"--images={folder}", f"--out={tmp_path / out}")


def test_names_of_columns_cannot_break_the_config(tmp_path):
    header = ['sku"""', "na'me\\", 'pic"ture']
    rows = [header, *([p.number, p.title, ",".join(shop_exports.file_names(p))] for p in FOUND)]
    export = shop_exports.Export("t\"'.csv", shop_exports.text(rows).encode(), shop_exports.files_of(FOUND), len(FOUND))
    table, folder = shop_exports.write(export, tmp_path)
    _init(tmp_path, table, f"--images={folder}", f"--out={tmp_path / 'shop.py'}")
    kwargs = config_files.load(tmp_path / "shop.py").data.kwargs
    assert kwargs.columns["image"] == ('pic"ture',) and kwargs.files == "t\"'.csv"


def test_what_a_search_can_be_filtered_by_is_declared_and_changes_no_listing(tmp_path, capsys):
    rows = [["Artikelnummer", "Bezeichnung", "Farbe", "Preis", "Hinweis", "Bild"]]
    for p in FOUND:
        price = "1.234,50" if p.number == 3 else f"{p.number + 9},90"
        rows.append(
            [
                p.number,
                p.title,
                ("Rot", "Blau")[p.number % 2],
                price,
                f"Nr. {p.number}",
                "|".join(shop_exports.file_names(p)),
            ]
        )
    content = shop_exports.text(rows, ";").encode("utf-8-sig")
    export = shop_exports.Export("t.csv", content, shop_exports.files_of(FOUND), len(FOUND))
    table, folder = shop_exports.write(export, tmp_path)
    _init(tmp_path, table, f"--images={folder}", f"--out={tmp_path / 'shop.py'}")
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert "filter (category)" in lines["Farbe"] and "filter (number)" in lines["Preis"]
    assert "not a filter: too many different values" in lines["Hinweis"]
    assert "# Not used: Hinweis." in (tmp_path / "shop.py").read_text()
    config = config_files.load(tmp_path / "shop.py")
    found = loading.load(config.data)
    gallery = found.gallery
    assert found.column_names == {"Farbe": ["Blau", "Rot"]} and set(gallery.columns) == {"Farbe", "Preis"}
    for row, name in enumerate(gallery.ids):
        number = int(name.split("-")[0])
        assert gallery.columns["Preis"][row] == np.float32(1234.5 if number == 3 else number + 9.9)
        assert gallery.columns["Farbe"][row] == (number + 1) % 2
    del config.data.kwargs["columns"]["Farbe"], config.data.kwargs["columns"]["Preis"]
    without = loading.load(config.data)
    for split in ("train", "val", "query", "gallery"):
        assert list(getattr(without, split).ids) == list(getattr(found, split).ids)


@pytest.mark.parametrize("titles", ["words", "none"])
def test_what_can_be_learned_decides_the_task(tmp_path, titles):
    rows = [["sku", "image"], *([f"A{p.number}", name] for p in FOUND for name in shop_exports.file_names(p))]
    export = shop_exports.Export("t.csv", shop_exports.text(rows).encode(), shop_exports.files_of(FOUND), len(rows) - 1)
    if titles == "words":
        export = shop_exports.etsy(shop_exports.products(40))
    table, folder = shop_exports.write(export, tmp_path)
    _init(tmp_path, table, f"--images={folder}", f"--out={tmp_path / 'shop.py'}")
    task = config_files.load(tmp_path / "shop.py").train.task
    assert task == {"words": "multilabel", "none": "self_supervised"}[titles]


@pytest.mark.parametrize("scored", [True, False])
def test_a_config_runs_to_a_report(tmp_path, capsys, little_compilation, tiny_variant, scored):
    found = shop_exports.products(24)
    found = found if scored else [product for product in found if product.pictures == 1]
    table, folder = shop_exports.write(shop_exports.torgovlya(found), tmp_path)
    _init(tmp_path, table, f"--images={folder}", f"--out={tmp_path / 'shop.py'}")
    config = config_files.load(tmp_path / "shop.py")
    with config.unlocked():
        config.train.model = tiny.tiny_config().train.model
    config.data.image_size = (16, 16)
    config.train.epochs, config.train.eval_every_epochs = 1.0, 0.0
    config.embed.models = ("histogram", "trained")
    run.run(config, tmp_path / "run")
    page, printed = (tmp_path / "run" / "report.html").read_text(), capsys.readouterr().out
    if scored:
        scores = json.loads((tmp_path / "run" / "metrics.json").read_text())
        assert [stage["stage"] for stage in scores["stages"]] == ["cosine", "cosine", "chosen"]
        assert 0 < scores["chance"]["mar@10"] < 1 and "evaluate: by chance, with the" in printed
        assert "A gallery in random order would score MAR@10" in page
    else:
        assert not (tmp_path / "run" / "metrics.json").exists()
        assert "no ground truth" in printed and "nothing can be scored. The rows below show what is found" in page


WITHOUT_WORDS = {  # that titles have in common; with words, see above
    "category": [
        ["sku", "name", "category", "image"],
        *([f"S{n}", f"N{n}x", ("Rings", "Mugs")[n % 2], f"{n}a.png|{n}b.png"] for n in range(12)),
    ],
    "self_supervised": [
        ["sku", "name", "image"],
        *([f"S{n}", f"N{n}x", f"{n}a.png|{n}b.png"] for n in range(6)),
    ],
}


@pytest.mark.parametrize("task", WITHOUT_WORDS)
def test_titles_without_common_words_do_not_stop_a_run(tmp_path, capsys, little_compilation, tiny_variant, task):
    rows = WITHOUT_WORDS[task]
    files = {f"{n}{side}.png": (n, place) for n in range(len(rows) - 1) for place, side in enumerate("ab")}
    export = shop_exports.Export("t.csv", shop_exports.text(rows).encode(), files, len(rows) - 1)
    table, folder = shop_exports.write(export, tmp_path)
    _init(tmp_path, table, f"--images={folder}", f"--out={tmp_path / 'shop.py'}")
    config = config_files.load(tmp_path / "shop.py")
    assert config.train.task == task
    with config.unlocked():
        config.train.model = tiny.tiny_config().train.model
    config.data.image_size = (16, 16)
    config.train.epochs, config.train.eval_every_epochs = 0.5, 0.0
    assert mine.run(config, tmp_path / "run")["tokens_kept"] == 0
    train.run(config, tmp_path / "run")
    assert f"the task {task} needs none" in capsys.readouterr().out


def test_the_report_names_every_part_of_a_column_and_every_reason_once(tmp_path, capsys):
    table, folder = shop_exports.write(shop_exports.named_files(FOUND), tmp_path)
    _init(tmp_path, table, f"--images={folder}", f"--out={tmp_path / 'shop.py'}")
    assert "file name, product" in capsys.readouterr().out
    rows = [["sku", "name", "image"], *([p.number, p.title, "same.png|none.png"] for p in FOUND[:3])]
    rows += [[p.number, p.title, f"{n}.png"] for n, p in enumerate(FOUND[3:6])]
    files = {"same.png": (0, 0)} | {f"{n}.png": (n + 1, 0) for n in range(3)}
    export = shop_exports.Export("t.csv", shop_exports.text(rows).encode(), files, 6)
    table, folder = shop_exports.write(export, tmp_path / "shared")
    _init(tmp_path, table, f"--images={folder}")
    printed = capsys.readouterr().out
    assert printed.count("same.png is named by 3 products") == 1 == printed.count("has no file 'none.png'")
