import io
import struct
import zipfile

import numpy as np
import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.files import arrays


def header(literal: str) -> bytes:
    text = literal.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def npy(array) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
        np.zeros((0, 4), np.float32),
        np.array(3),
        np.array([True, False]),
    ],
)
def test_arrays_come_back(tmp_path, array, mmap):
    (tmp_path / "a.npy").write_bytes(npy(array))
    found = arrays.load_npy(tmp_path / "a.npy", mmap=mmap, dtypes=(array.dtype.name,), ndim=array.ndim)
    assert isinstance(found, np.memmap) == mmap and found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "truncated or not a .npy file"),
        (b"PK\3\4 something else", "truncated or not"),
        (npy(np.zeros(3, np.float32))[:-1], "announces float32 of shape .3,., but holds 11 bytes"),
        (npy(np.zeros(3, np.float32)) + b"x", "holds 13 bytes"),
        (npy(np.zeros(3)), "holds float64, not float32"),
        (npy(np.zeros((3, 1), np.float32)), r"its shape is \(3, 1\), not of 1 dimensions"),
        (npy(np.zeros(3, ">f4")), "it holds >f4"),
        (npy(np.array(["a", {}], object)), "it holds object"),
        (npy(np.zeros(2, "V8")), r"it holds \|V8"),
        (npy(np.zeros(2, [("a", "f4")])), "it holds"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}"), "announces float32"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 4000 + ",)}"), "announces float32"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"), "it holds float32 of shape"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (2.0,)}"), "truncated or not"),
        (header("{'descr': '<U999999999', 'fortran_order': False, 'shape': (1,)}"), "truncated or not"),
        (header("(" * 4000), "truncated or not"),
        (header("-" * 9000 + "1"), "truncated or not"),
        (header("__import__('os').abort()"), "truncated or not"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "truncated or not"),
        (b"\x93NUMPY\x09\x00", "its version is"),
    ],
)
def test_nothing_is_believed_that_a_header_says(tmp_path, content, message):
    (tmp_path / "a.npy").write_bytes(content)
    for mmap in (False, True):
        with pytest.raises(InputError, match=message):
            arrays.load_npy(tmp_path / "a.npy", mmap=mmap, dtypes=("float32",), ndim=1)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(
        InputError,
        match=message.replace("truncated or not a .npy file", "cannot be read").replace(
            "truncated or not", "cannot be read"
        ),
    ):
        arrays.load_npz(tmp_path / "a.npz", {"a": (("float32",), 1)}, remedy="fit it again")


def test_archives(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, mean=np.ones(3), info=np.array('{"k": 1}'))
    wanted = {"mean": (("float64",), 1), "info": (("str",), 0)}
    found = arrays.load_npz(file, wanted, remedy="fit it again")
    assert found["mean"].tolist() == [1, 1, 1] and str(found["info"]) == '{"k": 1}'
    found["mean"][0] = 2  # it can be written to
    with pytest.raises(InputError, match="has no array 'other'"):
        arrays.load_npz(file, {"other": ((), 1)}, remedy="fit it again")
    with pytest.raises(InputError, match="not found: fit it again"):
        arrays.load_npz(tmp_path / "b.npz", wanted, remedy="fit it again")
    np.savez_compressed(file, mean=np.zeros(10**7), info=np.array(""))
    with pytest.raises(InputError, match="its array 'mean' is compressed"):
        arrays.load_npz(file, wanted, remedy="fit it again")
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(InputError, match="cannot be read"):
        arrays.load_npz(file, wanted, remedy="fit it again")


def test_checksums(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert arrays.file_sha256(tmp_path / "a").startswith("ba7816bf")
