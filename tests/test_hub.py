"""Pushing and pulling exported models, with the real client against a stand-in for the hub."""

import json
import os
import subprocess
import sys

import pytest
from huggingface_hub import constants

import exported_files
import hub_server
from repository import ROOT
from retrieval_jax.__main__ import main
from retrieval_jax.errors import InputError
from retrieval_jax.sharing import card, transfer
from retrieval_jax.workdir import layout


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_server.running() as made:
        monkeypatch.setattr(constants, "ENDPOINT", made.address)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", made.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", "hf_made_up")
        yield made


@pytest.fixture
def folder(tmp_path):
    """Files as an exported model has them."""
    made = tmp_path / "served"
    made.mkdir()
    return exported_files.write(made)


def test_what_is_pushed_is_pulled(hub, folder, tmp_path, capsys):
    main(["hub", "push", str(folder), "me/shoes", "--licence=mit"])
    files = hub.files("me/shoes")
    assert set(files) == {*(file.name for file in folder.iterdir()), "README.md"}
    assert f"{hub.address}/me/shoes/commit/" in capsys.readouterr().out
    main(["hub", "pull", "me/shoes", str(tmp_path / "there")])
    for file in folder.iterdir():
        assert (tmp_path / "there" / file.name).read_bytes() == file.read_bytes()
    assert {file.name for file in (tmp_path / "there").iterdir() if not file.name.startswith(".")} == set(files)
    assert hub.sha("me/shoes")[:12] in capsys.readouterr().out
    (folder / "labels.json").write_text(json.dumps({"label_names": ["red"]}))
    exported_files.describe(folder)
    transfer.push(folder, "me/shoes")
    transfer.pull("me/shoes", tmp_path / "there")
    assert json.loads((tmp_path / "there" / "labels.json").read_text()) == {"label_names": ["red"]}


def test_a_name_of_a_repository_is_fetched_from_the_hub_whatever_folder_has_it(
    hub, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    pushed(hub, folder)
    main(["hub", "pull", "me/shoes", "me/shoes"])
    (folder / "labels.json").write_text(json.dumps({"label_names": ["red"]}))
    exported_files.describe(folder)
    pushed(hub, folder)
    main(["hub", "pull", "me/shoes", "me/shoes"])  # the same command fetches what is new
    assert json.loads((tmp_path / "me" / "shoes" / "labels.json").read_text()) == {"label_names": ["red"]}
    assert "give ./me/shoes" not in capsys.readouterr().out
    main(["hub", "pull", "me/shoes", "elsewhere"])
    assert "me/shoes is fetched from the hub; for the folder of that name give ./me/shoes" in capsys.readouterr().out
    hub.commits.clear()
    main(["hub", "pull", "./me/shoes", "copied"])
    assert transfer.verify(tmp_path / "copied")
    with pytest.raises(SystemExit) as exited:
        main(["hub", "pull", "./me/shoes", "me/shoes"])
    assert exited.value.code == 2 and "that is to be replaced" in capsys.readouterr().err


def test_the_endpoint_is_that_of_the_environment(hub, folder):
    names = {"HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_made_up"}
    words = [sys.executable, "-m", "retrieval_jax", "hub", "push", str(folder), "me/shoes"]
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, **names}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "me/shoes" in hub.commits, done.stderr


def test_the_card_says_what_the_model_is(folder, capsys):
    main(["hub", "push", str(folder), "me/shoes", "--licence=mit", "--dry-run"])
    said = capsys.readouterr().out
    assert said.startswith('---\nlicense: "mit"\n') and "would push 6 files" in said
    assert "| chosen | 25.0 (20.0 to 30.0) |" in said and "40 queries" in said
    assert r"Catalogue shoes\|\<b\>" in said and "train 1,200" in said and "wool (900), black (3)" in said
    assert "`convnext_atto.d2_in1k`, licence: apache-2.0. Licence of this model: mit." in said
    code = said.partition("```python\n")[2].partition("```")[0].splitlines()
    assert len(code) == 5 and 'exported.load("shoes")' in code[1]
    compile("\n".join(code), "card", "exec")


def test_a_card_without_a_search_or_licence_says_so(folder):
    for name in ("search.json", "vocabulary.json"):
        (folder / name).unlink()
    exported_files.describe(folder)
    said = card.of_folder(folder, "me/shoes")
    assert "Not measured" in said and "has stated no licence" in said and "license:" not in said
    assert "2 attributes" in said


def test_the_card_of_a_network_of_words_says_how_it_is_asked_and_what_it_is_made_of(folder):
    about = json.loads((folder / "config.json").read_text())
    about["programs"]["embed_query"] = "embed.jax_export"
    about["inputs"] = {"embed": [{"name": "product", "kind": "ragged"}, {"name": "product_mask", "kind": "mask"}]}
    about["texts"] = {"product": {}, "query": {}}
    about["initial_weights"]["beside"] = [{"name": "nobody/words", "licence": ""}, {"run": "seen"}]
    (folder / "config.json").write_text(json.dumps(about))
    said = card.of_folder(folder, "me/shoes")
    assert 'queries = model.for_search(["red shoes"], "query", "embed_query")' in said
    assert 'gallery = model.for_search(["red leather shoes", "blue dress"], "gallery")' in said
    assert "licence: apache-2.0. Initial weights: `nobody/words`, licence: unknown" in said
    assert "Continues the run `seen`." in said


def test_a_card_written_by_hand_stays(hub, folder, capsys):
    hub.commits["me/shoes"] = [{"README.md": b"---\nlicense: mit\n---\nMy shoes."}]
    transfer.push(folder, "me/shoes")
    assert hub.files("me/shoes")["README.md"].endswith(b"My shoes.") and "stays as it is" in capsys.readouterr().out
    hub.commits["me/new"] = [{"README.md": b"---\nlicense: mit\n---\n"}]  # as the hub makes them
    transfer.push(folder, "me/new")
    assert card.MARK.encode() in hub.files("me/new")["README.md"]


@pytest.mark.parametrize("name", ["model.safetensors", "labels.json"])
def test_a_damaged_folder_is_not_pushed(hub, folder, name):
    with (folder / name).open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(InputError, match=f"{name} is missing, or is not the file whose checksum"):
        transfer.push(folder, "me/shoes")
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        transfer.push(folder, "me/shoes")
    assert not hub.commits


def test_a_folder_that_is_no_export_is_not_pushed(hub, folder, tmp_path):
    with pytest.raises(InputError, match="holds no exported model"):
        transfer.push(tmp_path, "me/shoes")
    (folder / "code.py").write_text("print()")
    exported_files.describe(folder)
    with pytest.raises(InputError, match=r"code\.py: exported models have no such files"):
        transfer.push(folder, "me/shoes")
    with pytest.raises(InputError, match="is not the name of a repository: give owner/name"):
        transfer.push(folder, "shoes")


def pushed(hub, folder, **changed):
    """Puts the files of a folder on the hub, some of them changed or removed."""
    files = {file.name: file.read_bytes() for file in folder.iterdir()} | changed
    hub.commits["me/shoes"] = [{name: content for name, content in files.items() if content is not None}]


def test_what_the_listing_does_not_say_is_not_pulled(hub, folder, tmp_path):
    pushed(hub, folder, **{"setup.py": b"raise SystemExit", "weights.pkl": b"\x80"})
    transfer.pull("me/shoes", tmp_path / "there")
    assert not {"setup.py", "weights.pkl"} & {file.name for file in (tmp_path / "there").iterdir()}
    assert not [path for _, path in hub.requests if path.endswith((".py", ".pkl"))]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"config.json": None}, "has no config.json, which a model"),
        ({"config.json": b"{}"}, "config.json of me/shoes"),
        ({"config.json": b"[1"}, "config.json"),
        ({"labels.json": None}, "has no labels.json"),
        ({"labels.json": b'{"label_names": []}'}, "labels.json is missing, or is not the file whose checksum"),
    ],
)
def test_a_repository_that_does_not_fit_leaves_nothing(hub, folder, tmp_path, change, words):
    pushed(hub, folder, **change)
    (tmp_path / "parent").mkdir()
    with pytest.raises(InputError) as raised:
        transfer.pull("me/shoes", tmp_path / "parent" / "there")
    assert words in str(raised.value) and not list((tmp_path / "parent").iterdir())


@pytest.mark.parametrize("name", ["../../evil.json", "a/b.json", ".."])
def test_names_that_lead_elsewhere_are_refused(hub, folder, tmp_path, name):
    about = json.loads((folder / "config.json").read_text())
    about["sha256"][name] = "0" * 64
    pushed(hub, folder, **{"config.json": json.dumps(about).encode()})
    with pytest.raises(InputError, match="config.json of me/shoes"):
        transfer.pull("me/shoes", tmp_path / "there")


@pytest.mark.parametrize("name", ["model.safetensors", "labels.json"])
def test_a_file_that_arrives_otherwise_than_listed_is_refused(hub, folder, tmp_path, name):
    pushed(hub, folder)
    content = (folder / name).read_bytes()
    hub.altered[name] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(InputError, match=f"{name} of me/shoes differs from what the hub lists"):
        transfer.pull("me/shoes", tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_the_click_log_of_a_folder_that_is_served_stays(hub, folder, tmp_path):
    pushed(hub, folder)
    transfer.pull("me/shoes", tmp_path / "there")
    (tmp_path / "there" / layout.CLICK_LOG).write_text("{}")
    transfer.pull("me/shoes", tmp_path / "there")
    assert (tmp_path / "there" / layout.CLICK_LOG).read_text() == "{}"


def test_a_private_push_into_a_public_repository_is_refused(hub, folder):
    hub.commits["me/shoes"] = [{}]
    with pytest.raises(InputError, match="me/shoes is public"):
        transfer.push(folder, "me/shoes", private=True)
    assert hub.commits["me/shoes"] == [{}]
    transfer.push(folder, "me/new", private=True)
    assert "config.json" in hub.files("me/new")


def test_an_earlier_model_stays_where_a_pull_fails(hub, folder, tmp_path):
    pushed(hub, folder)
    transfer.pull("me/shoes", tmp_path / "there")
    hub.altered["labels.json"] = b"{}"
    with pytest.raises(InputError):
        transfer.pull("me/shoes", tmp_path / "there")
    assert transfer.verify(tmp_path / "there")["programs"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not an exported model"):
        transfer.pull("me/shoes", tmp_path / "other")


@pytest.mark.parametrize(
    "refused, status, words",
    [(401, 2, "set HF_TOKEN"), (403, 2, "write access"), (500, 1, "try again later")],
)
def test_a_refusal_is_one_sentence(hub, folder, tmp_path, capsys, refused, status, words):
    hub.refused = refused
    with pytest.raises(SystemExit) as exited:
        main(["hub", "pull", "me/shoes", str(tmp_path / "there")])
    said = capsys.readouterr().err
    assert exited.value.code == status and words in said and "Traceback" not in said


def test_a_missing_repository_revision_or_hub_is_one_sentence(hub, folder, tmp_path, monkeypatch, capsys):
    pushed(hub, folder)
    for words in (["me/boots"], ["me/shoes", "--revision=v2"]):
        with pytest.raises(SystemExit) as exited:
            main(["hub", "pull", words[0], str(tmp_path / "there"), *words[1:]])
        assert exited.value.code == 2 and "check the name, the revision" in capsys.readouterr().err
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SystemExit) as exited:
        main(["hub", "pull", "me/shoes", str(tmp_path / "there")])
    assert exited.value.code == 1 and "check the network and HF_ENDPOINT" in capsys.readouterr().err
