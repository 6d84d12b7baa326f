"""Changes to valid files that a reader must survive: bytes, values of JSON, headers of arrays, pipes and devices."""

import io
import json
import os
import struct

import numpy as np

ODD = [
    *(None, True, False, 0, -1, 1, 2, 1.5, float("nan"), float("inf"), 1e308, 2**31, 2**53, 2**63, 10**30, -(10**30)),
    *("", "x", "float64", "../../../../etc/passwd", "/etc/passwd", "a\0b", "\ud800", "a/b", "..", "é" * 300, "%s{0}"),
    *([], {}, [[]], [None], {"": None}, [1, 2, 3], ["x"], {"a": {"b": 1}}, [0] * 1000),
]


def _nodes(value, path=()):
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _nodes(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _nodes(item, (*path, number))


def changed_json(rng, text):
    """Returns JSON with one value, key or length changed, or invalid JSON."""
    value = json.loads(text)
    paths = list(_nodes(value))
    path = rng.choice(paths)
    odd = rng.choice(ODD)
    kind = rng.randrange(9)
    if not path or kind == 8:
        deep = "[" * 10 ** rng.randrange(1, 6)
        return rng.choice(
            [json.dumps(odd), deep, text + text, text[: rng.randrange(len(text))], deep + "]" * len(deep)]
        )
    *above, last = path
    node = value
    for key in above:
        node = node[key]
    if kind <= 3:
        node[last] = odd
    elif kind == 4:
        del node[last]
    elif kind == 5 and isinstance(node, dict):
        node[rng.choice(["extra", "", "format", "..", "moving"])] = odd
    elif kind == 6:
        source = value
        for key in rng.choice(paths):
            source = source[key]
        node[last] = json.loads(json.dumps(source))
    elif isinstance(node[last], (int, float)) and not isinstance(node[last], bool):
        node[last] = node[last] * rng.choice([-1, 2, 10, 10**6, 10**12]) + rng.choice([0, 1, -1])
    elif isinstance(node[last], list):
        node[last] = node[last] * rng.choice([2, 3]) if rng.random() < 0.5 else node[last][:-1]
    text = json.dumps(value)
    if rng.random() < 0.05 and '"' in text:  # a key that occurs twice
        text = text.replace("{", '{"format": 1, ', 1)
    return text


def changed_bytes(rng, data):
    """Returns bytes with a few changed, removed, inserted or copied."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        if not data:
            break
        at, kind = rng.randrange(len(data)), rng.randrange(7)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del data[at : at + rng.randrange(1, 64)]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 16))
        elif kind == 4:
            other = rng.randrange(len(data))
            data[at : at + 16] = data[other : other + 16]
        elif kind == 5:
            data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", bytes(4), b"\xff\xff\xff\x7f", b"\0\0\0\x80"])
        else:
            del data[at:]
    return bytes(data)


def changed_npy(rng, data):
    """Returns a .npy file with another header, or other values."""
    try:
        with np.errstate(all="ignore"):
            array = np.load(io.BytesIO(data))
    except Exception:  # changed before
        return changed_bytes(rng, data)
    kind = rng.randrange(5)
    if kind == 0:
        descr = rng.choice(["<f4", "<f8", ">f4", "<f2", "|u1", "<i8", "|O", "<U9", "|V4", "<U999999999", "x", "<c16"])
        sides = [rng.choice([0, 1, 3, -1, 2**31, 10**12, 2**63]) for _ in range(rng.randrange(4))]
        shape = rng.choice([array.shape, tuple(sides), "(", [3], (1.5,), ((3,),), "9" * 5000])
        text = f"{{'descr': {descr!r}, 'fortran_order': {rng.choice([True, False])}, 'shape': {shape}, }}\n"
        return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text) & 0xFFFF) + text.encode() + array.tobytes()
    if kind == 1:
        return changed_bytes(rng, data[:128]) + data[128:]
    if kind == 2:
        array = array.astype(rng.choice(["<f4", "<f2", "<i4", "<i8", "|u1", ">f8"]))
    elif kind == 3:
        array = rng.choice([array[:-1], array[..., None], array.reshape(-1), np.concatenate([array, array])])
    elif array.size:
        flat = array.reshape(-1)
        flat[rng.randrange(len(flat))] = (
            rng.choice([0, 1, 255]) if array.dtype == np.uint8 else rng.choice([0, -1, 10**6])
        )
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def changed_npz(rng, data):
    """Returns an .npz file with one array changed, or other bytes."""
    if rng.random() < 0.4:
        return changed_bytes(rng, data)
    try:
        with np.load(io.BytesIO(data)) as found:
            arrays = dict(found)
    except Exception:  # changed before
        return changed_bytes(rng, data)
    if not arrays:
        return changed_bytes(rng, data)
    name = rng.choice(sorted(arrays))
    kind, array, out = rng.randrange(5), arrays[name], io.BytesIO()
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[name] = rng.choice([array.reshape(-1)[:-1], array[..., None], array.reshape(-1)])
    elif array.dtype.kind == "U":
        arrays[name] = np.array(changed_json(rng, str(array)) if str(array).startswith("{") else "x")
    elif kind == 2:
        arrays[name] = array.astype(rng.choice(["<f4", "<i4", "<i8", "|u1", "<f8"]))
    elif array.size:
        arrays[name] = array.copy()
        arrays[name].reshape(-1)[rng.randrange(array.size)] = rng.choice([0, 1, -1, 10**6])
    (np.savez_compressed if kind == 4 else np.savez)(out, **arrays)
    return out.getvalue()


def change(target, rng, folder):
    """Changes one to three files of a folder; returns what was done."""
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
        if target == "exported" and rng.random() < 0.8:  # programs take a second each
            files = [file for file in files if file.suffix != ".jax_export"]
        if not files:
            break
        file, kind = rng.choice(files), rng.random()
        if kind < 0.8 and file.suffix == ".json":  # mostly the descriptions
            try:
                file.write_text(changed_json(rng, file.read_text()), "utf-8", "surrogatepass")
            except (ValueError, RecursionError):  # changed before
                file.write_bytes(changed_bytes(rng, file.read_bytes()))
        elif kind < 0.9:
            by_kind = {".npy": changed_npy, ".npz": changed_npz}.get(file.suffix, changed_bytes)
            file.write_bytes(by_kind(rng, file.read_bytes()))
        elif kind < 0.93:
            file.unlink()
        elif kind < 0.96:
            other = rng.choice(files)
            content = file.read_bytes()
            file.write_bytes(other.read_bytes())
            other.write_bytes(content)
        elif kind < 0.98:
            file.write_bytes(b"")
        else:
            file.unlink()
            odd = rng.randrange(3)
            os.mkfifo(file) if odd == 0 else file.mkdir() if odd == 1 else file.symlink_to("/dev/zero")
        done.append(f"{file.relative_to(folder)} ({kind:.2f})")
    return ", ".join(done)
