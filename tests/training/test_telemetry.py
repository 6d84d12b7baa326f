"""Speed, profiler window and compilation cache of a run."""

import collections
import os

import jax.numpy as jnp
import pytest

from retrieval_jax.errors import InputError
from retrieval_jax.training import telemetry


@pytest.mark.parametrize(
    "kind, peak",
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("cpu", None),
    ],
)
def test_utilisation_is_a_share_of_a_known_peak(monkeypatch, kind, peak):
    monkeypatch.setattr(telemetry.jax, "devices", lambda: [type("Device", (), {"device_kind": kind})])
    assert telemetry.peak_flops() == peak
    assert telemetry.utilisation(1e12, 0.01) == (1e14 / peak if peak else None)
    assert telemetry.utilisation(None, 0.01) is None


def test_speed_excludes_evaluation_and_compilation(monkeypatch):
    clock, seconds = [100.0], collections.Counter()
    monkeypatch.setattr(telemetry.time, "monotonic", lambda: clock[0])
    speed = telemetry.Speed(seconds, 10)
    clock[0] += 9.0
    seconds.update({"evaluation": 3.0, "compiler": 2.0, "input": 1.0})
    found = speed.since_last(20, 8)
    assert found["images_per_second"] == 20.0 and found["input_wait_share"] == 0.25
    assert found["model_flops_utilisation"] is None and 0 < found["memory_gib"] < 64


def test_profile_window(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(telemetry.PROFILE, "3")
    with pytest.raises(InputError, match="give the first and the last step"):
        telemetry.Profile(tmp_path)
    monkeypatch.setenv(telemetry.PROFILE, "2:3")
    profile = telemetry.Profile(tmp_path)
    ends = []
    for step in range(1, 5):
        profile.before(step)
        jnp.ones(3).sum().block_until_ready()
        ends.append(profile.ends(step))
        if ends[-1]:
            profile.close()
    assert ends == [False, False, True, False] and list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert "profile of steps 2 to 3" in capsys.readouterr().out


def test_compilation_cache_is_on_by_default(monkeypatch, tmp_path):
    settings = {}
    monkeypatch.setattr(
        telemetry.jax,
        "config",
        type("C", (), {"jax_compilation_cache_dir": None, "update": staticmethod(settings.__setitem__)}),
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(os.environ, "JAX_COMPILATION_CACHE_DIR", "")
    telemetry.keep_compiled()
    assert not settings  # turned off
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    telemetry.keep_compiled()
    assert settings["jax_compilation_cache_dir"].startswith(str(tmp_path / "retrieval_jax" / "compiled"))
