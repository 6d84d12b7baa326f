"""Work directories and catalogues at a URL, on a real S3 server in this process; killed copies, two machines.

Longer than 400 lines: a real S3 server serves all of it.
"""

import asyncio
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest
from ml_collections import ConfigDict

from retrieval_jax import run as walk
from retrieval_jax import workdir
from retrieval_jax.data import loading
from retrieval_jax.errors import InputError, Preempted
from retrieval_jax.files import lock, remote
from retrieval_jax.workdir import preflight

ROOT = pathlib.Path(__file__).resolve().parents[2]
URL = "s3://bucket/runs/mine"


@pytest.fixture(scope="module")
def address():
    server = pytest.importorskip("moto.server", reason="pip install -r requirements-dev.txt")
    pytest.importorskip("s3fs", reason="pip install -r requirements-dev.txt")
    started = server.ThreadedMotoServer(port=0, verbose=False)
    with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
        started.start()
    yield "http://{}:{}".format("127.0.0.1", started.get_host_and_port()[1])
    started.stop()


@pytest.fixture
def bucket(address, monkeypatch, tmp_path):
    """An empty bucket, and a cache of our own; returns the file system."""
    for name, value in (
        ("AWS_ENDPOINT_URL", address),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("RETRIEVAL_JAX_CACHE", str(tmp_path / "one")),
    ):
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    if files.exists("bucket"):
        files.rm("bucket", recursive=True)
    files.mkdir("bucket")
    return files


def there(files):
    files.invalidate_cache()
    return sorted(name.removeprefix("bucket/runs/mine/") for name in files.find("bucket/runs/mine"))


def machine(monkeypatch, tmp_path, name):
    monkeypatch.setenv("RETRIEVAL_JAX_CACHE", str(tmp_path / name))
    return remote.local_folder(URL)


def fill(folder, **content):
    for name, text in content.items():
        file = folder / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.mark.parametrize(
    "given, url",
    [
        (URL, URL),
        (pathlib.Path(URL), URL),
        ("GS://bucket/a/", "gs://bucket/a"),
        ("gcs://b/a", "gs://b/a"),
        ("memory://a", "memory://a"),
    ],
)
def test_a_url_has_a_local_folder_and_back(given, url, tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_JAX_CACHE", str(tmp_path))
    folder = remote.local_folder(given)
    assert folder.is_relative_to(tmp_path) and remote.url(folder) == url
    assert remote.url(folder / "checkpoints") == url + "/checkpoints"
    assert workdir.member_folder(given, "other:arg") == folder.parent / "other-arg"


def test_local_paths_and_file_urls_mirror_no_url(tmp_path):
    assert remote.local_folder(f"file://{tmp_path}/a") == tmp_path / "a"
    for local in (tmp_path, pathlib.Path("runs/a"), pathlib.Path.home()):
        assert remote.local_folder(local) == local and remote.url(local) is None
    with pytest.raises(InputError, match="full address"):
        remote.local_folder("s3://")
    with pytest.raises(InputError, match="full address"):
        remote.local_folder("s3://bucket/../other")


def test_orbax_writes_to_gs_directly_and_everything_else_locally(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_JAX_CACHE", str(tmp_path))
    assert remote.checkpoint_folder(remote.local_folder("gs://b/run") / "checkpoints") == "gs://b/run/checkpoints"
    folder = remote.local_folder("s3://b/run") / "checkpoints"
    assert remote.checkpoint_folder(folder) == folder and remote.checkpoint_folder("runs/x") == "runs/x"


def test_only_changes_are_uploaded_and_deletions_follow(bucket, tmp_path, monkeypatch):
    one = machine(monkeypatch, tmp_path, "one")
    fill(
        one,
        a="1",
        deep__b="2",
        **{".half.tmp": "no", "checkpoints__5.orbax-checkpoint-tmp__x": "no", ".query.partial__c": "yes"},
    )
    remote.push(one)
    assert there(bucket) == [".query.partial/c", "a", "deep/b"]
    bucket.pipe_file("bucket/runs/mine/deep/b", b"elsewhere")
    fill(one, a="1 again")
    remote.push(one)
    assert bucket.cat_file("bucket/runs/mine/a") == b"1 again"
    assert bucket.cat_file("bucket/runs/mine/deep/b") == b"elsewhere"  # did not change here: not sent
    (one / "a").unlink()
    remote.push(one)
    assert there(bucket) == [".query.partial/c", "deep/b"]
    two = machine(monkeypatch, tmp_path, "two")
    remote.pull(two)
    assert (two / "deep" / "b").read_text() == "elsewhere" and not (two / "a").exists()


def test_a_start_keeps_what_a_killed_run_left_unless_another_machine_continued(bucket, tmp_path, monkeypatch):
    one = machine(monkeypatch, tmp_path, "one")
    fill(one, a="1", checkpoints__5__x="five")
    remote.push(one)
    fill(one, checkpoints__6__x="six, killed before it went up")
    remote.pull(one, settle=True)
    assert (one / "checkpoints/6/x").exists()
    two = machine(monkeypatch, tmp_path, "two")
    remote.pull(two, settle=True)
    assert (two / "checkpoints/5/x").read_text() == "five"
    fill(two, checkpoints__7__x="seven")
    remote.push(two)
    one = machine(monkeypatch, tmp_path, "one")
    remote.pull(one, settle=True)
    assert sorted(folder.name for folder in (one / "checkpoints").iterdir()) == ["5", "7"]


def test_deletions_and_changes_on_one_machine_reach_the_other(bucket, tmp_path, monkeypatch):
    one = machine(monkeypatch, tmp_path, "one")
    fill(one, a="1", b="1", c="1", checkpoints__5__x="five")
    remote.push(one)
    two = machine(monkeypatch, tmp_path, "two")
    remote.pull(two)
    (two / "a").unlink()
    (two / "checkpoints/5/x").unlink()
    fill(two, b="2", c="2")
    remote.push(two)
    one = machine(monkeypatch, tmp_path, "one")
    fill(one, c="3, not sent")
    remote.pull(one)  # while it works
    assert sorted(file.name for file in one.iterdir() if not file.name.startswith(".")) == ["b", "c", "checkpoints"]
    assert not list((one / "checkpoints").iterdir())
    assert (one / "b").read_text() == "2" and (one / "c").read_text() == "3, not sent"
    fill(two, d="4")
    machine(monkeypatch, tmp_path, "two")
    remote.push(two)
    machine(monkeypatch, tmp_path, "one")
    remote.pull(one, settle=True)  # when it starts: the other machine went on
    assert (one / "c").read_text() == "2" and (one / "d").read_text() == "4"


def test_a_half_uploaded_checkpoint_is_not_seen(bucket, tmp_path, monkeypatch):
    one = machine(monkeypatch, tmp_path, "one")
    fill(one, checkpoints__5__x="five", checkpoints__5__y="five")
    remote.push(one)
    fill(one, checkpoints__6__x="six", checkpoints__6__y="six")
    import s3fs

    put_file = s3fs.S3FileSystem._put_file

    async def put_half(self, file, *args, **kwargs):
        if file.endswith("y"):
            await asyncio.sleep(1)
            raise OSError("the machine went away")
        await put_file(self, file, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "_put_file", put_half)
        with pytest.raises(InputError, match="the machine went away.*nothing is lost"):
            remote.push(one)
    assert "checkpoints/6/x" in there(bucket)
    two = machine(monkeypatch, tmp_path, "two")
    remote.pull(two, settle=True)
    assert [folder.name for folder in (two / "checkpoints").iterdir()] == ["5"]
    machine(monkeypatch, tmp_path, "one")
    remote.push(one)  # the machine came back
    two = machine(monkeypatch, tmp_path, "two")
    remote.pull(two)
    assert sorted(folder.name for folder in (two / "checkpoints").iterdir()) == ["5", "6"]


@pytest.mark.parametrize(
    "url, said",
    [
        ("s3://no-such-bucket/run", "no-such-bucket.*cannot be reached"),
        ("nosuch://bucket/run", "cannot be reached.*nosuch"),
    ],
)
def test_an_unreachable_url_is_one_sentence(bucket, url, said):
    folder = remote.local_folder(url)
    fill(folder, a="1")
    with pytest.raises(InputError, match=said):
        remote.push(folder)
    assert (folder / "a").read_text() == "1"


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_JAX_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    folder = remote.local_folder("gs://bucket/run")
    with pytest.raises(InputError, match="pip install -r requirements-gcs.txt"):
        remote.pull(folder)


def test_a_catalogue_at_a_url_is_downloaded_once_and_its_changes_are_seen(bucket, tmp_path, monkeypatch):
    from PIL import Image

    root = tmp_path / "shop"
    (root / "pictures").mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (4, 4), (60 * i, 0, 0)).save(root / "pictures" / f"{i}.png")
    (root / "gallery.csv").write_text("id,image\n" + "".join(f"g{i},pictures/{i}.png\n" for i in range(3)))
    bucket.put(str(root) + "/", "bucket/shop/", recursive=True)
    block = {
        "source": "table",
        "kwargs": {
            "root": "s3://bucket/shop",
            "files": {"gallery": "gallery.csv"},
            "columns": {"id": "id", "image": "image"},
        },
    }
    monkeypatch.setattr(remote, "_AT_ONCE", 3)
    loaded = loading.load(block)
    assert loaded.name == "shop" and loaded.gallery.images[2].max() == 120
    copied = remote.local_folder("s3://bucket/shop") / "pictures" / "0.png"
    before = copied.stat().st_mtime_ns
    Image.new("RGB", (4, 4), (9, 9, 9)).save(root / "pictures" / "2.png")
    bucket.put_file(str(root / "pictures" / "2.png"), "bucket/shop/pictures/2.png")
    assert loading.load(block).gallery.images[2].max() == 9
    assert copied.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="s3://bucket/none contains no files"):
        loading.load({"source": "table", "kwargs": {**block["kwargs"], "root": "s3://bucket/none"}})


def test_a_complete_run_uploads_what_an_earlier_one_could_not(bucket, tmp_path, monkeypatch):
    one = machine(monkeypatch, tmp_path, "one")
    config = ConfigDict({"name": "x", "data": {}, "mine": {}})
    for module in (workdir, preflight):
        monkeypatch.setattr(module, "verbs", lambda config: ())
    workdir.prepare(config, one)
    assert not there(bucket)
    walk.run(config, URL)
    assert "config.json" in there(bucket)


@pytest.mark.long
def test_a_training_killed_on_one_machine_resumes_on_another(bucket, tmp_path):
    often = (
        "import runpy, retrieval_jax.files.remote as remote; remote.SECONDS = 0.3; "
        "runpy.run_module('retrieval_jax.run', run_name='__main__', alter_sys=True)"
    )
    options = (
        f"--config={ROOT}/configs/quickstart.py:runlocal",
        "--config.train.checkpoint_every_steps=2",
        f"--workdir={URL}",
    )
    first = subprocess.Popen(
        [sys.executable, "-c", often, *options],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "RETRIEVAL_JAX_CACHE": str(tmp_path / "one")},
    )
    try:
        deadline = time.monotonic() + 200
        while not any(name.endswith(".whole") for name in there(bucket)):
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        first.kill()
        first.wait()
    assert "stages/embed.json" not in there(bucket)
    done = subprocess.run(
        [sys.executable, "-m", "retrieval_jax.train", *options],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=300,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "RETRIEVAL_JAX_CACHE": str(tmp_path / "two")},
    )
    assert done.returncode == 0 and "train: resumes from step" in done.stdout, done.stdout + done.stderr


def run(*words, **env):
    command = [sys.executable, "-m", "retrieval_jax.run", f"--config={ROOT}/configs/quickstart.py:runlocal", *words]
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **env},
    )


@pytest.mark.long
def test_a_whole_run_on_s3_continued_on_another_machine(bucket, tmp_path):
    done = run(f"--workdir={URL}", RETRIEVAL_JAX_CACHE=str(tmp_path / "one"))
    assert done.returncode == 0, done.stderr
    names = there(bucket)
    for name in (
        "config.json",
        "run.json",
        "stages/report.json",
        "report.html",
        "metrics.json",
        "metrics.jsonl",
        "attributes/vocabulary.json",
        "embeddings/trained/gallery/embeddings.json",
        "rankings/rankings.json",
    ):
        assert name in names, names
    assert any(name.endswith(".whole") for name in names)
    again = run(f"--workdir={URL}", RETRIEVAL_JAX_CACHE=str(tmp_path / "two"))
    assert again.returncode == 0 and "ran nothing" in again.stdout, again.stdout + again.stderr
    # The third machine searches anew, with what the first one embedded, and the first sees that.
    third = run(f"--workdir={URL}", "--config.search.k=7", RETRIEVAL_JAX_CACHE=str(tmp_path / "three"))
    assert third.returncode == 0 and "ran search, evaluate, report" in third.stdout, third.stdout + third.stderr
    last = run(f"--workdir={URL}", "--config.search.k=7", RETRIEVAL_JAX_CACHE=str(tmp_path / "one"))
    assert last.returncode == 0 and "ran nothing" in last.stdout, last.stdout + last.stderr


def test_a_verb_that_fails_or_is_stopped_leaves_nothing_behind(bucket, tmp_path, monkeypatch):
    one = machine(monkeypatch, tmp_path, "one")
    monkeypatch.setattr(lock, "LEASE", 0.6)

    def stopped(config, folder):
        fill(folder, checkpoints__5__x="five")
        raise Preempted("SIGTERM")

    with pytest.raises(Preempted):
        workdir.run_stage(ConfigDict({"data": {}, "train": {}}), one, "train", stopped)
    assert there(bucket) == ["checkpoints/5.whole", "checkpoints/5/x", "config.json", "stages/train.json"]
    fill(one, checkpoints__6__x="six")
    remote.push_before_the_end()  # of a process that ends by os._exit
    assert "checkpoints/6.whole" in there(bucket)


def test_a_work_directory_in_checkpoint_scores_is_synced_separately(bucket, tmp_path, monkeypatch):
    one = machine(monkeypatch, tmp_path, "one")
    fill(
        one,
        config_json="{}",
        checkpoint_scores__best__config_json="{}",
        checkpoint_scores__best__checkpoints__5__x="five",
    )
    remote.push(one, below="checkpoint_scores")
    best = one / "checkpoint_scores" / "best"
    remote.pull(best, settle=True)
    assert (best / "checkpoints" / "5" / "x").exists()
    other = machine(monkeypatch, tmp_path, "two") / "checkpoint_scores" / "best"
    remote.pull(other, settle=True)
    assert (other / "checkpoints" / "5" / "x").read_text() == "five"
    at_gs = remote.local_folder("gs://b/run/checkpoint_scores/best/checkpoints")
    assert remote.checkpoint_folder(at_gs) == at_gs


def test_what_a_killed_download_left_of_a_checkpoint_does_not_count(bucket, tmp_path, monkeypatch):
    one = machine(monkeypatch, tmp_path, "one")
    fill(one, **{"checkpoints__5__.x.123.tmp": "fi"})
    remote.pull(one, settle=True)
    assert not (one / "checkpoints" / "5").exists()


def test_a_checkpoint_that_is_being_deleted_does_not_count(bucket, tmp_path, monkeypatch):
    one = machine(monkeypatch, tmp_path, "one")
    fill(one, checkpoints__5__x="five", checkpoints__5__y="five")
    remote.push(one)
    (one / "checkpoints" / "5" / "x").unlink()
    remote.push(one)
    assert there(bucket) == ["checkpoints/5/y"]


def test_scores_from_another_machine_drop_nothing_of_a_killed_training(bucket, tmp_path, monkeypatch):
    one = machine(monkeypatch, tmp_path, "one")
    fill(one, checkpoints__5__x="five")
    remote.push(one)
    two = machine(monkeypatch, tmp_path, "two")
    remote.pull(two)
    fill(two, **{"checkpoint_scores__metrics.jsonl": "5"})
    remote.push(two, below="checkpoint_scores")
    one = machine(monkeypatch, tmp_path, "one")
    fill(one, checkpoints__6__x="six")  # and killed before it went up
    remote.pull(one, settle=True)
    assert (one / "checkpoints" / "6" / "x").exists() and (one / "checkpoint_scores" / "metrics.jsonl").exists()


def test_a_checkpoint_deleted_during_its_upload_does_not_block_others(bucket, tmp_path, monkeypatch):
    one = machine(monkeypatch, tmp_path, "one")
    fill(one, checkpoints__5__x="five", checkpoints__5__y="five", checkpoints__10__x="ten", a="a")
    import s3fs

    put_file = s3fs.S3FileSystem._put_file

    async def put_while_deleting(self, file, *args, **kwargs):
        if file.endswith("5/x"):
            shutil.rmtree(one / "checkpoints" / "5")
        await put_file(self, file, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_put_file", put_while_deleting)
    remote.push(one)
    assert there(bucket) == ["a", "checkpoints/10.whole", "checkpoints/10/x"]
