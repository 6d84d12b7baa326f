import csv
import os
import subprocess
import sys

import pytest

import picture_server
import repository
from retrieval_jax import __main__ as door
from retrieval_jax import pictures
from retrieval_jax.data.fetching import addresses
from retrieval_jax.errors import InputError, RunFailed


@pytest.fixture(scope="module")
def running():
    with picture_server.served() as server:
        yield server


def table(folder, *cells):
    """Writes a table of shoes, one picture each."""
    words = ("Red", "Green", "Blue", "Black", "White", "Brown", "Grey")
    lines = [f"shoe-{number},{words[number]} shoe of leather,{cell}" for number, cell in enumerate(cells)]
    (folder / "products.csv").write_text("\n".join(["sku,title,image_link", *lines]) + "\n")
    return folder / "products.csv"


def run(*words):
    given = door.parse(["pictures", *map(str, words), "--allow_private=127.0.0.1"])
    pictures.main(given)


def test_all_pictures_of_a_table(running, tmp_path, capsys):
    given = [f"{running.url}/ok/{number}/front.png" for number in range(3)]
    run(table(tmp_path, *given), f"--out={tmp_path / 'out'}")
    printed = capsys.readouterr().out
    assert "3 addresses of 3 products, 3 of them different, at 127.0.0.1:" in printed
    assert "3 fetched (0.0 MB received), 0 already there, 0 failed" in printed
    assert {file.name for file in (tmp_path / "out").iterdir()} == {".lock", *map(addresses.file_name, given)}
    run(table(tmp_path, *given), f"--out={tmp_path / 'out'}")
    assert "0 fetched (0.0 MB received), 3 already there, 0 failed" in capsys.readouterr().out


def test_failures_are_listed_by_product_and_end_with_1(running, tmp_path, capsys):
    out, bad = tmp_path / "out", f"{running.url}/404/a.png"
    given = [f"{running.url}/ok/a.png", bad, f"{running.url}/html/=1+1.png", f"{running.url}/403/a.png"]
    with pytest.raises(RunFailed, match="3 of the pictures could not be fetched; .*failed.csv lists them"):
        run(table(tmp_path, *given), f"--out={out}")
    printed = capsys.readouterr().out
    assert "1 fetched" in printed and "3 failed" in printed and "1 not found, such as" in printed
    with open(out / "failed.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["products", "address", "reason", "detail"]
    assert rows[1][:3] == ["shoe-1", bad, "not found"] and rows[2][2:] == [
        "not an image file",
        "it is an HTML, XML or SVG page",
    ]
    run(table(tmp_path, given[0]), f"--out={out}")
    assert not (out / "failed.csv").exists()


def test_an_address_of_several_products_is_fetched_once(running, tmp_path, capsys):
    good, bad = f"{running.url}/ok/once.png", f"{running.url}/404/once.png"
    pairs = [("a", good), ("b", good), ("b", bad), ("=c", bad)]
    result = pictures.fetch(pairs, tmp_path, allow_private=["127.0.0.1"])
    assert result.fetched == [good] and running.counts["/ok/once.png"] == 1
    assert "4 addresses of 3 products, 2 of them different" in capsys.readouterr().out
    assert (tmp_path / "failed.csv").read_text().splitlines()[1].startswith(f"b | =c,{bad},not found,404")


def test_what_the_user_already_has_is_not_fetched_again(running, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    given = [f"{running.url}/ok/{name}" for name in ("mine.png", "1/front.png", "2/front.png", "3/none.png")]
    for name in ("mine.png", "front.png"):
        (out / name).write_bytes(picture_server.picture("blue"))
    run(table(tmp_path, *given), f"--out={out}")
    assert "3 fetched" in capsys.readouterr().out  # front.png is one of two: which, the name does not say
    assert not (out / addresses.file_name(given[0])).exists() and (out / addresses.file_name(given[1])).exists()


def test_init_and_a_run_find_what_was_fetched(running, tmp_path):
    from retrieval_jax.data.exports import folders

    out = tmp_path / "out"
    given = [f"{running.url}/ok/1/front.png", f"{running.url}/ok/2/front.png", f"{running.url}/ok/image.php?id=7"]
    run(table(tmp_path, *given), f"--out={out}")
    there = folders.Folder(out)
    assert [there.find(address)[0] for address in given] == [addresses.file_name(address) for address in given]


@pytest.mark.parametrize(
    "option, words",
    [
        ("--per_host=0", "per_host=0: give a number above 0"),
        ("--seconds=nan", "seconds=nan"),
        ("--max_gb=inf", "max_gb=inf"),
        ("--allow_private=intranet", "'intranet' is not an address"),
    ],
)
def test_limits_that_cannot_be(running, tmp_path, option, words):
    with pytest.raises(InputError, match=words):
        run(table(tmp_path, f"{running.url}/ok/a.png"), f"--out={tmp_path / 'out'}", option)
    assert not (tmp_path / "out").exists()


def test_a_table_without_addresses_and_a_folder_that_is_a_file(running, tmp_path):
    with pytest.raises(InputError, match="no column names pictures by address"):
        run(table(tmp_path, "a.jpg"), f"--out={tmp_path / 'out'}")
    with pytest.raises(InputError, match="cannot be used: File exists"):
        run(table(tmp_path, f"{running.url}/ok/a.png"), f"--out={tmp_path / 'products.csv'}")


def test_the_command_ends_with_1_where_a_host_is_private(running, tmp_path):
    command = [sys.executable, "-m", "retrieval_jax", "pictures", str(table(tmp_path, f"{running.url}/ok/a.png"))]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")],
        cwd=repository.ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(repository.ROOT)},
        timeout=60,
    )
    assert done.returncode == 1 and "127.0.0.1 is private; --allow_private allows it" in done.stdout
    assert done.stderr.rstrip().splitlines()[-1].startswith("error: 1 of the pictures could not be fetched")
