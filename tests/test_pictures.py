import csv
import os
import subprocess
import sys

import pytest

import picture_server
import repository
from retrieval_jax import __main__ as door
from retrieval_jax import output, pictures
from retrieval_jax.data.fetching import addresses
from retrieval_jax.errors import InputError, RunFailed


@pytest.fixture(scope="module")
def running():
    with picture_server.served() as server:
        yield server


def table(folder, *cells):
    """Writes a table of shoes, one picture each."""
    lines = [f"shoe-{number},Shoe number {number},{cell}" for number, cell in enumerate(cells)]
    (folder / "products.csv").write_text("\n".join(["sku,title,image_link", *lines]) + "\n")
    return folder / "products.csv"


def run(*words):
    given = door.parse(["pictures", *map(str, words), "--allow_private=127.0.0.1"])
    pictures.main(given)


def test_all_pictures_of_a_table(running, tmp_path, capsys):
    given = [f"{running.url}/ok/{number}/front.png" for number in range(3)]
    run(table(tmp_path, *given, given[0]), f"--out={tmp_path / 'out'}")
    printed = capsys.readouterr().out
    assert "4 addresses of 4 products, 3 of them different, at 127.0.0.1:" in printed
    assert "3 fetched (0.0 MB received), 0 already there, 0 failed" in printed
    assert {file.name for file in (tmp_path / "out").iterdir()} == {".lock", *map(addresses.file_name, given)}
    run(table(tmp_path, *given), f"--out={tmp_path / 'out'}")
    assert "0 fetched (0.0 MB received), 3 already there, 0 failed" in capsys.readouterr().out


def test_failures_are_listed_by_product_and_end_with_1(running, tmp_path, capsys):
    out, bad = tmp_path / "out", f"{running.url}/404/a.png"
    given = [f"{running.url}/ok/a.png", bad, bad, f"{running.url}/html/=1+1.png", f"{running.url}/403/a.png"]
    with pytest.raises(RunFailed, match="3 of the pictures could not be fetched; .*failed.csv lists them"):
        run(table(tmp_path, *given), f"--out={out}")
    printed = capsys.readouterr().out
    assert "1 fetched" in printed and "3 failed" in printed and "1 not found, such as" in printed
    with open(out / "failed.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["products", "address", "reason", "detail"]
    assert rows[1][:3] == ["shoe-1 | shoe-2", bad, "not found"] and rows[2][2:] == [
        "not an image file",
        "it is an HTML, XML or SVG page",
    ]
    run(table(tmp_path, given[0]), f"--out={out}")
    assert not (out / "failed.csv").exists()


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx"])
def test_no_cell_is_a_formula(cell):
    assert output.cell(cell) == f"'{cell}"


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
    with pytest.raises(InputError, match="no pictures by address"):
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
