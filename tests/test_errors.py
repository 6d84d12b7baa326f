"""What the operating system refuses is one sentence, whoever passes it on."""

import errno
import os

import numpy as np
import pytest

from retrieval_jax import errors
from retrieval_jax.embeddings import Embeddings
from retrieval_jax.errors import InputError, RunFailed
from retrieval_jax.files import atomic
from retrieval_jax.scoring.ranking import Ranking

VECTORS = Embeddings(["a", "b"], np.eye(2))
RANKING = Ranking(["q"], np.array([[0]]), np.array([[1.0]]))


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (OSError(errno.ENOSPC, "x", "/data/a"), RunFailed, "/data/a could not be read or written (No space left"),
        (OSError(errno.EDQUOT, "x", "/data/a"), RunFailed, "a larger quota"),
        (PermissionError(errno.EACCES, "x", "/data/a"), InputError, "/data/a cannot be used (Permission denied)"),
        (OSError(errno.EROFS, "x", "/data/a"), InputError, "not read-only"),
        (OSError(errno.EMFILE, "x"), RunFailed, "ulimit -n"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), RunFailed, "free some space"),
        (OSError("4096 requested and 0 written"), RunFailed, "free some space"),
        (RuntimeError("Error: failed to write: No space left on device"), RunFailed, "free some space"),
    ],
)
def test_an_error_of_the_system_is_a_sentence_with_its_path_and_a_remedy(error, kind, sentence):
    found = errors.refusal(error)
    assert isinstance(found, kind) and sentence in str(found)
    assert errors.explain(error)[1] == (2 if kind is InputError else 1)


def test_a_mistake_of_ours_keeps_its_trace():
    assert errors.explain(KeyError("a")) is None and errors.refusal(OSError("no number")) is None
    try:
        try:
            open("/none/a")
        except FileNotFoundError:
            raise KeyError("a")  # noqa: B904  what happens by accident
    except KeyError as error:
        assert errors.explain(error) is None


def _places(tmp_path):
    (tmp_path / "file").write_text("")
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    yield tmp_path / "file" / "folder", "Not a directory|File exists"
    yield tmp_path / ("a" * 300), "File name too long"
    yield tmp_path / "loop" / "folder", "symbolic links|File exists"
    yield tmp_path / "a\0b", "cannot be the name of a file"
    yield tmp_path / "a\udcffb\ud800", "cannot be the name of a file"


@pytest.mark.parametrize("number", range(5))
def test_savers_and_loaders_name_a_path_that_cannot_be(tmp_path, number):
    place, sentence = list(_places(tmp_path))[number]
    for save in (VECTORS.save, RANKING.save, lambda path: atomic.write_json(path, {})):
        with pytest.raises(InputError, match=sentence):
            save(place)
    for load in (Embeddings.load, Ranking.load):
        with pytest.raises(InputError):
            load(place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_another_user_is_a_sentence(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(InputError, match="Permission denied"):
        VECTORS.save(tmp_path / "folder")
