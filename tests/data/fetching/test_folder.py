import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import picture_server as servers
import repository
from retrieval_jax.data.fetching import addresses, client, folder
from retrieval_jax.files import atomic

LOOPBACK = addresses.networks(["127.0.0.1"])
QUICK = folder.Limits(seconds=20.0, picture_bytes=1_000_000, max_pixels=10_000)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(folder, "_FIRST_PAUSE", 0.01)


@pytest.fixture(scope="module")
def running():
    with servers.served() as server:
        yield server


def fetch(given, to, limits=QUICK, allowed=LOOPBACK):
    result = folder.fetch(given, to, limits=limits, allowed=allowed)
    assert len(result.fetched) + len(result.present) + len(result.failed) == len(
        {addresses.normal(one) for one in given}
    )
    names = {addresses.file_name(address) for address in (*result.fetched, *result.present)}
    assert {file.name for file in to.iterdir()} == names  # nothing else, and nothing partial
    return result


def only_failure(result):
    assert len(result.failed) == 1, result
    return result.failed[0].reason, result.failed[0].detail


def test_pictures_arrive_whole_once_and_are_not_fetched_again(running, tmp_path):
    given = [f"{running.url}/ok/{number}/front.png" for number in (1, 2, 1)] + [f"{running.url}/ok/back.png?v=2"]
    result = fetch(given, tmp_path)
    assert result.fetched == [given[0], given[1], given[3]] and not result.failed
    assert all((tmp_path / addresses.file_name(one)).read_bytes() == servers.picture() for one in given)
    assert result.num_bytes == 3 * len(servers.picture())
    before = dict(running.counts)
    result = fetch(given, tmp_path)
    assert result.present == [given[0], given[1], given[3]] and running.counts == before
    assert running.headers[-1]["User-Agent"].startswith("retrieval_jax/")
    assert "Cookie" not in running.headers[-1] and "Authorization" not in running.headers[-1]


def test_a_picture_that_was_damaged_on_disk_is_fetched_again(running, tmp_path):
    address = f"{running.url}/ok/damaged.png"
    (tmp_path / addresses.file_name(address)).write_bytes(servers.picture()[:40])
    assert fetch([address], tmp_path).fetched == [address]


@pytest.mark.parametrize(
    "path, reason, detail, requests",
    [
        ("404/a.png", "not found", "404", 1),
        ("403/a.png", "refused", "403", 1),
        ("broken/a.png", "error of the server", "500", 3),
        ("loop/a.png", "redirected too often", "5 times", 1),
        ("drip/a.png", "too slow", "0.6 s", 3),
        ("drip_headers/a.png", "too slow", "0.6 s", 3),
        ("endless/a.png", "too many bytes", "more than 1,000,000", 1),
        ("announced/a.png", "too many bytes", "1,000,000,000,000", 1),
        ("short/a.png", "the answer ended early", "", 3),
        ("html/a.png", "not an image file", "an HTML", 1),
        ("empty/a.png", "not an image file", "empty", 1),
        ("large/a.png", "image too large", "300 x 300", 1),
        ("bomb/a.png", "too many bytes", "more than 1,000,000", 1),
        ("brotli/a.png", "not an answer", "compressed (br)", 1),
        ("nonsense/a.png", "not an answer", "", 1),
        ("hang_up/a.png", "the answer ended early", "", 3),
    ],
)
def test_what_is_not_a_picture_is_counted_by_reason(running, tmp_path, path, reason, detail, requests):
    limits = dataclasses.replace(QUICK, seconds=0.6) if "drip" in path else QUICK
    found = only_failure(fetch([f"{running.url}/{path}"], tmp_path, limits))
    assert found[0] == reason and detail in found[1] and found[1].isprintable()
    assert running.counts[f"/{path}"] in (requests, 2 * requests)  # the client asks again on a connection just closed


def test_an_answer_longer_than_it_promised_is_not_taken_for_a_picture(running, tmp_path):
    assert only_failure(fetch([f"{running.url}/long/a.png"], tmp_path))[0] in ("not an answer", "truncated image file")


def test_an_answer_of_gzip_is_unpacked(running, tmp_path):
    assert fetch([f"{running.url}/gzip/a.png"], tmp_path).fetched


def test_busy_and_flaky_hosts_get_another_try_when_they_ask_for_it(running, tmp_path):
    given = [f"{running.url}/busy/a.png", f"{running.url}/flaky/a.png"]
    assert fetch(given, tmp_path).fetched == given
    first, second = running.times["/busy/a.png"]
    assert second - first >= 1.0


def test_a_host_that_asks_for_a_long_pause_is_left_alone(tmp_path):
    with servers.served() as server:
        given = [f"{server.url}/always_busy/{number}.png" for number in range(20)]
        result = fetch(given, tmp_path)
        assert sum(server.counts.values()) <= QUICK.per_host
    assert {failure.reason for failure in result.failed} == {"too many requests"} and len(result.failed) == 20
    assert "3,600 s" in result.failed[-1].detail


def test_a_host_that_keeps_failing_is_left_out_and_others_are_not(running, tmp_path):
    with servers.served() as server:
        given = [f"{server.url}/broken/{number}.png" for number in range(50)] + [f"{running.url}/ok/other.png"]
        result = fetch(given, tmp_path)
        assert len(server.counts) < 20
    assert result.fetched == [given[-1]]
    assert {failure.reason for failure in result.failed} == {"error of the server", "host left out"}


def test_no_more_at_a_time_than_a_host_is_to_be_asked_for(tmp_path):
    with servers.served() as server:
        fetch([f"{server.url}/slow/{number}.png" for number in range(12)], tmp_path)
        assert 2 <= server.most <= QUICK.per_host


def test_limits_of_number_and_of_bytes(running, tmp_path):
    given = [f"{running.url}/ok/limit{number}.png" for number in range(5)]
    result = fetch(given, tmp_path, folder.Limits(pictures=2))
    assert result.fetched == given[:2] and {failure.reason for failure in result.failed} == {"limit reached"}
    result = fetch(given, tmp_path, folder.Limits(total_bytes=int(1.5 * len(servers.picture())), per_host=1))
    assert len(result.present) == 2 and len(result.fetched) == 1 and len(result.failed) == 2


# ------------------------------------------------------------------------------------------------------ private hosts


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_a_private_host_is_not_connected_to(running, tmp_path, host):
    before = sum(running.counts.values())
    found = only_failure(fetch([running.url.replace("127.0.0.1", host) + "/ok/a.png"], tmp_path, allowed=()))
    if host in ("127.1", "2130706433"):  # numbers that only some systems read as addresses
        assert found[0] == "not a usable address"
    elif host != "0x7f.0.0.1" or found[0] != "unknown host":
        assert found[0] == "private address" and "--allow_private" in found[1]
    assert sum(running.counts.values()) == before


@pytest.mark.parametrize("target", ["127.0.0.2", "[::1]", "169.254.169.254", "[fd00:ec2::254]", "[::ffff:127.0.0.2]"])
def test_a_redirect_to_a_private_host_is_not_followed(running, tmp_path, target):
    with servers.served("127.0.0.2") as private:
        running.target = f"http://{target}:{private.server_address[1]}/ok/secret.png"
        found = only_failure(fetch([f"{running.url}/to/a.png"], tmp_path))
        assert found[0] == "private address" and not private.counts


@pytest.mark.parametrize("target", ["file:///etc/passwd", "http://me:secret@127.0.0.1/a.png", "gopher://127.0.0.1/a"])
def test_a_redirect_to_something_else_than_a_web_address_is_not_followed(running, tmp_path, target):
    running.target = target
    assert only_failure(fetch([f"{running.url}/to/a.png"], tmp_path))[0] == "not a usable address"


def test_a_redirect_within_the_allowed_is_followed(running, tmp_path):
    running.target = "/ok/moved.png"
    assert fetch([f"{running.url}/to/a.png"], tmp_path).fetched


def test_one_private_address_among_public_ones_is_enough_to_refuse(running, tmp_path, monkeypatch):
    def answers(host, port, *_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("93.184.216.34", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    found = only_failure(fetch([running.url.replace("127.0.0.1", "both.example") + "/ok/a.png"], tmp_path, allowed=()))
    assert found[0] == "private address" and "127.0.0.1" in found[1]


def test_a_name_that_changes_its_address_after_the_check_reaches_nothing(running, tmp_path, monkeypatch):
    """DNS rebinding: the socket is made for an address that was checked, whatever the resolver returned."""
    monkeypatch.setattr(client._Resolver, "resolve", client.ThreadedResolver.resolve)  # as if it had checked another
    before = sum(running.counts.values())
    found = only_failure(fetch([running.url.replace("127.0.0.1", "localhost") + "/ok/a.png"], tmp_path, allowed=()))
    assert found[0] in ("private address", "no connection") and sum(running.counts.values()) == before


def test_proxies_and_passwords_of_the_environment_are_not_used(running, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "out").mkdir()
    assert fetch([f"{running.url}/ok/a.png"], tmp_path / "out").fetched
    assert "Authorization" not in running.headers[-1]


# --------------------------------------------------------------------------------------------------------- interrupted

CHILD = """
import pathlib, sys
from retrieval_jax.data.fetching import addresses, folder
from retrieval_jax.errors import Preempted
try:
    folder.fetch(sys.argv[2:], pathlib.Path(sys.argv[1]), allowed=addresses.networks(["127.0.0.1"]))
except Preempted as error:
    print(error, file=sys.stderr)
    sys.exit(75)
"""


@pytest.mark.parametrize("number, status", [(signal.SIGKILL, -9), (signal.SIGTERM, 75)])
def test_a_killed_run_leaves_only_whole_pictures_and_is_resumed(tmp_path, number, status):
    out = tmp_path / "pictures"
    out.mkdir()
    with servers.served() as server:
        given = [f"{server.url}/slow/{number}.png" for number in range(40)]
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(out), *given], cwd=repository.ROOT, stderr=subprocess.PIPE, text=True
        )
        end = time.monotonic() + 30
        while len(list(out.glob("*.png"))) < 8 and time.monotonic() < end:
            time.sleep(0.02)
        child.send_signal(number)
        said = child.communicate(timeout=20)[1]
        assert child.returncode == status, said
        if number == signal.SIGTERM:
            assert "of 40 pictures are in" in said and not list(out.glob(".*"))
        there = list(out.glob("*.png"))
        assert 8 <= len(there) < 40 and all(file.read_bytes() == servers.picture() for file in there)
        half = atomic.temporary(out / addresses.file_name(given[0]))  # as SIGKILL may leave it
        (out / half.name.replace(f".{os.getpid()}.", f".{child.pid}.")).write_bytes(b"half")
        (out / ".htaccess").write_text("mine")
        result = folder.fetch(given, out, limits=QUICK, allowed=LOOPBACK)
        assert len(result.present) == len(there) and len(result.fetched) == 40 - len(there)
        assert {file.name for file in out.iterdir()} == {*map(addresses.file_name, given), ".htaccess"}


def test_an_unwritable_folder_is_an_error_of_the_system(running, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder.atomic, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        folder.fetch(
            [f"{running.url}/ok/{number}.png" for number in range(9)], tmp_path, limits=QUICK, allowed=LOOPBACK
        )


def test_it_also_runs_beside_the_main_thread(running, tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(fetch([f"{running.url}/ok/thread.png"], tmp_path)))
    thread.start()
    thread.join(20)
    assert results and results[0].fetched


def test_files_have_the_mode_of_the_users_other_files(running, tmp_path):
    result = fetch([f"{running.url}/ok/mode.png"], tmp_path)
    (tmp_path / "other").touch()
    file: pathlib.Path = tmp_path / addresses.file_name(result.fetched[0])
    assert file.stat().st_mode == os.stat(tmp_path / "other").st_mode
