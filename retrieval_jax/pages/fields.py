"""Section of the report about predicted attributes: how good they are per field, and how far to trust a probability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrieval_jax.pages import charts
from retrieval_jax.pages.parts import escape, section


def sections(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the section of predicted attributes; nothing where none were predicted.

    Args:
      found: `scoring.written.attributes`.
    """
    if not found:
        return []
    parts = [_table(split, scores) for split, scores in found.items()]
    curves = {
        split: [(p, share) for p, share in zip(*_bins(scores), strict=True) if p is not None]
        for split, scores in found.items()
        if "calibration" in scores
    }
    if any(curves.values()):
        series = {"perfect": [(0.0, 0.0), (1.0, 1.0)], **curves}
        parts.append(charts.curves("Share of predictions that are right", series, "predicted probability", "right"))
    return [section("Predicted attributes", "\n".join(parts))]


def _bins(scores: Mapping[str, Any]) -> tuple[list, list]:
    return scores["calibration"]["probability"], scores["calibration"]["right"]


def _table(split: str, scores: Mapping[str, Any]) -> str:
    majority = scores.get("majority", {})
    names = [name.removesuffix("_precision") for name in scores if name.endswith("_precision")]
    rows = [(name, *(scores[f"{name}_{rate}"] for rate in ("precision", "recall", "f1")), majority.get(name))
            for name in names]  # fmt: skip
    rows.append(("all", scores["precision"], scores["recall"], scores["f1"], None))
    body = "".join(
        f"<tr><td>{escape(str(name))}</td>" + "".join(f"<td>{_percent(value)}</td>" for value in values) + "</tr>"
        for name, *values in rows
    )
    sentences = [f"The F1 of a listing's set is {_percent(scores['set_f1'])} on average"]
    if "calibration" in scores:
        sentences.append(f"the expected calibration error {scores['calibration']['ece']:.3f}")
    unseen, true = scores.get("unseen", {}), scores.get("true_unseen", {})
    combined = "".join(
        f"<li>{escape(name)}: {_percent(share)}, of true labels {_percent(true.get(name))}</li>"
        for name, share in unseen.items()
    )
    combinations = f"<p>Listings with two values that no train listing has together:</p><ul>{combined}</ul>"
    return (
        f"<h3>{escape(split)}, {scores['num_listings']:,} listings</h3><p>{', '.join(sentences)}.</p>"
        "<table><tr><th>field</th><th>precision</th><th>recall</th><th>F1</th><th>most frequent value</th></tr>"
        f"{body}</table>{combinations if unseen else ''}"
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"
