"""Exported models as one file: the same bytes every time, and nothing but their files out of a stranger's archive."""

import io
import json
import tarfile

import pytest

import exported_files
from retrieval_jax.__main__ import main
from retrieval_jax.errors import InputError
from retrieval_jax.files import documents
from retrieval_jax.files.arrays import file_sha256
from retrieval_jax.sharing import archives, transfer
from retrieval_jax.workdir import layout


@pytest.fixture
def folder(tmp_path):
    """Files as an exported model has them."""
    made = tmp_path / "served"
    made.mkdir()
    return exported_files.write(made)


def written(file, entries):
    """Writes a tar of (header, content) pairs."""
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for entry, content in entries:
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return file


def of_folder(folder, **changed):
    """Returns entries of the files of a folder, some of them changed."""
    files = {file.name: file.read_bytes() for file in folder.iterdir()} | changed
    return [(tarfile.TarInfo(name), content) for name, content in sorted(files.items())]


def test_what_is_packed_is_pulled_and_the_same_folder_gives_the_same_bytes(folder, tmp_path, capsys):
    archive = tmp_path / "shoes.tar"
    main(["hub", "pack", str(folder), str(archive), "--licence=mit"])
    digest = file_sha256(archive)
    assert f"sha256 {digest}" in capsys.readouterr().out
    assert (tmp_path / "shoes.tar.sha256").read_text() == f"{digest}  shoes.tar\n"
    for file in folder.iterdir():
        file.touch()  # a later time
        file.chmod(0o600)
    assert archives.pack(folder, tmp_path / "again" / "shoes.tar", licence="mit") == digest
    with tarfile.open(archive) as tar:  # anybody's tar reads it
        assert sorted(tar.getnames()) == sorted([*(file.name for file in folder.iterdir()), "README.md"])
        text = tar.extractfile("README.md").read().decode()
    assert "# shoes" in text and "hub pull shoes.tar shoes" in text and 'license: "mit"' in text
    main(["hub", "pull", str(archive), str(tmp_path / "there")])
    assert "all checksums match" in capsys.readouterr().out
    for file in folder.iterdir():
        assert (tmp_path / "there" / file.name).read_bytes() == file.read_bytes()
    assert (tmp_path / "there" / "README.md").read_text() == text
    (tmp_path / "there" / "README.md").write_text("My shoes.")  # by hand
    archives.pack(tmp_path / "there", archive)
    (tmp_path / "there" / layout.CLICK_LOG).write_text("{}")
    archives.pull(archive, tmp_path / "there")
    assert (tmp_path / "there" / "README.md").read_text() == "My shoes."
    assert (tmp_path / "there" / layout.CLICK_LOG).read_text() == "{}"


def test_a_folder_is_pulled_as_an_archive_is(folder, tmp_path):
    (folder / "notes.txt").write_text("mine")
    main(["hub", "pull", str(folder), str(tmp_path / "there")])
    assert transfer.verify(tmp_path / "there") and not (tmp_path / "there" / "notes.txt").exists()
    with (folder / "labels.json").open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(InputError, match="labels.json is missing, or is not the file whose checksum"):
        archives.pull(folder, tmp_path / "there")
    assert transfer.verify(tmp_path / "there")


def link(kind, name="model.safetensors", to="/etc/passwd"):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, to
    return entry, b""


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (link(tarfile.SYMTYPE), "'model.safetensors', which is not a plain file"),
        (link(tarfile.LNKTYPE), "'model.safetensors', which is not a plain file"),
        (link(tarfile.FIFOTYPE, "pipe.json"), "'pipe.json', which is not a plain file"),
        (link(tarfile.DIRTYPE, "more"), "'more', which is not a plain file"),
        (link(tarfile.GNUTYPE_LONGNAME, "././@LongLink"), "which is not a plain file"),
        (link(tarfile.XHDTYPE, "header.json"), "'header.json', which is not a plain file"),
        (link(tarfile.GNUTYPE_SPARSE, "sparse.npz"), "'sparse.npz', which is not a plain file"),
        ((tarfile.TarInfo("../evil.json"), b"{}"), "a file with the name '../evil.json'"),
        ((tarfile.TarInfo("/tmp/evil.json"), b"{}"), "a file with the name '/tmp/evil.json'"),
        ((tarfile.TarInfo("a/b.json"), b"{}"), "a file with the name 'a/b.json'"),
        ((tarfile.TarInfo(".hidden.json"), b"{}"), "a file with the name '.hidden.json'"),
        ((tarfile.TarInfo("labels.json"), b"{}"), "two files with the name 'labels.json'"),
        ((tarfile.TarInfo("code.py"), b"raise SystemExit"), "'code.py': exported models have only"),
        ((tarfile.TarInfo("more.json"), b"{}"), "'more.json', which its config.json does not list"),
    ],
)
def test_what_no_exported_model_holds_is_refused_and_leaves_nothing(folder, tmp_path, entry, message):
    archive = written(tmp_path / "evil.tar", [*of_folder(folder), entry])
    (tmp_path / "parent").mkdir()
    with pytest.raises(InputError) as raised:
        archives.pull(archive, tmp_path / "parent" / "there")
    assert message in str(raised.value) and not list((tmp_path / "parent").iterdir())


def test_damaged_archives_are_refused(folder, tmp_path, monkeypatch):
    archive, there = tmp_path / "shoes.tar", tmp_path / "there"
    whole = written(archive, of_folder(folder)).read_bytes()
    for content, message in (
        (whole[:9000], "ends before its file"),
        (b"x" * 5000, "cannot be read as a tar archive"),
        (b"", "has no config.json"),
        (whole.replace(b'"wool"', b'"WOOL"'), "is missing, or is not the file whose checksum"),
    ):
        archive.write_bytes(content)
        with pytest.raises(InputError, match=message):
            archives.pull(archive, there)
    archive.write_bytes(whole)
    with monkeypatch.context() as patch:
        patch.setattr(documents, "MOST_BYTES", 99)
        with pytest.raises(InputError, match=r"its config.json has [\d,]+ bytes, and 99 are read at most"):
            archives.pull(archive, there)
    (tmp_path / "shoes.tar.sha256").write_text(f"{'0' * 64}  shoes.tar\n")
    with pytest.raises(InputError, match="not the file whose checksum shoes.tar.sha256 has"):
        archives.pull(archive, there)
    written(archive, of_folder(folder, **{"config.json": json.dumps({"programs": {}}).encode()}))
    (tmp_path / "shoes.tar.sha256").unlink()
    with pytest.raises(InputError, match="config.json of .* has an unexpected content"):
        archives.pull(archive, there)
    assert not there.exists()
    with pytest.raises(InputError, match="is neither an archive nor the folder"):
        archives.pull(tmp_path / "missing.tar", there)
    with pytest.raises(InputError, match=r"the name of an archive ends in \.tar"):
        archives.pack(folder, tmp_path / "shoes.zip")


def test_an_archive_that_shrinks_while_it_is_read_is_refused(folder, tmp_path, monkeypatch):
    archive = written(tmp_path / "shoes.tar", of_folder(folder))
    entries = archives._entries

    def shrunk(stream, source):
        found = entries(stream, source)
        with archive.open("r+b") as other:
            other.truncate(max(start for start, _ in found.values()) + 10)
        return found

    monkeypatch.setattr(archives, "_entries", shrunk)
    with pytest.raises(InputError, match="ends before its file '.*' does: fetch it again"):
        archives.pull(archive, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_what_pull_refuses_is_not_packed(folder, tmp_path, monkeypatch):
    archive = tmp_path / "shoes.tar"
    archives.pack(folder, archive)
    before = archive.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(archives, "MOST_BYTES", 19_999)
        with pytest.raises(InputError, match=r"model.safetensors has 20,000 bytes, and a file of an archive 19,999"):
            archives.pack(folder, archive)
    with monkeypatch.context() as patch:
        patch.setattr(archives, "MOST_FILES", 6)
        with pytest.raises(InputError, match="has 7 files, and an archive holds 6 at most"):
            archives.pack(folder, archive)
    (folder / "embed größe.onnx").write_bytes(b"x")
    exported_files.describe(folder)
    with pytest.raises(InputError, match="a file with the name 'embed größe.onnx'.* letters A to Z"):
        archives.pack(folder, archive)
    assert archive.read_bytes() == before
    header = tarfile.TarInfo("x.json")
    header.size = archives.MOST_BYTES
    assert header.tobuf(tarfile.USTAR_FORMAT)
    header.size += 1
    with pytest.raises(ValueError, match="overflow"):
        header.tobuf(tarfile.USTAR_FORMAT)


def test_a_folder_is_not_replaced_by_what_lies_in_it(folder, tmp_path, monkeypatch):
    archives.pack(folder, folder / "shoes.tar")
    monkeypatch.chdir(tmp_path)
    for source in ("served", "./served/", "served/shoes.tar"):
        with pytest.raises(SystemExit) as exited:
            main(["hub", "pull", source, str(folder)])
        assert exited.value.code == 2
    with pytest.raises(InputError, match="is in the folder .* that is to be replaced: give another folder"):
        archives.pull(folder, folder)
    assert transfer.verify(folder)


def test_one_rule_says_which_folder_may_be_replaced(folder, tmp_path):
    archive, there = tmp_path / "shoes.tar", tmp_path / "there"
    archives.pack(folder, archive)
    archives.pull(archive, there)
    archives.pull(archive, there)
    for name, content in (("config.json", "{"), ("config.json", "{}"), ("thesis.txt", "mine")):
        other = tmp_path / f"other-{len(content)}"
        other.mkdir()
        (other / name).write_text(content)
        with pytest.raises(InputError, match="exists and is not an exported model"):
            archives.pull(archive, other)
        assert (other / name).read_text() == content


def test_options_of_one_action_are_refused_with_another(folder, tmp_path, capsys):
    for words, message in (
        (["pack", str(folder), str(tmp_path / "x.tar"), "--private"], "--private and --dry-run are options of push"),
        (["pull", str(folder), str(tmp_path / "there"), "--licence=mit"], "--licence is an option of push and pack"),
        (
            ["pull", str(folder), str(tmp_path / "there"), "--revision=v1"],
            "--revision applies to a repository on a hub",
        ),
        (["pack", str(folder), str(tmp_path / "x.tar"), "--revision=main"], "--revision is an option of pull"),
        (["push", str(folder), "me/x", "--dry-run", "--revision=v1"], "--revision is an option of pull"),
        (["pull", str(tmp_path / "missing" / "x.tar"), str(tmp_path / "there")], "is neither an archive nor"),
    ):
        with pytest.raises(SystemExit) as exited:
            main(["hub", *words])
        assert exited.value.code == 2 and message in capsys.readouterr().err
