"""Section of the report about predicted attributes: how good they are per field, and how far to trust a probability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from retrieval_jax.pages import charts, parts


def sections(found: Mapping[str, Mapping[str, Any]]) -> list[parts.Section]:
    """Returns the section of predicted attributes; nothing where none were predicted.

    Args:
      found: `scoring.written.attributes`.
    """
    if not found:
        return []
    body = [_split(split, scores) for split, scores in found.items()]
    measured = {split: scores["calibration"] for split, scores in found.items() if "calibration" in scores}
    if drawn := reliability(measured):
        body.append(parts.side_by_side(drawn))
    return [parts.Section("Predicted attributes", parts.joined(*body))]


def reliability(measured: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Draws predicted probabilities against the share of them that is right.

    Args:
      measured: {name of the curve: of `scoring.attributes.calibration`}.

    Returns:
      A <figure> element; "" where there is no bin with a prediction.
    """
    curves = {
        name: [(p, right) for p, right in zip(one["probability"], one["right"], strict=True) if p is not None]
        for name, one in measured.items()
    }
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return Markup("")
    most = 1.0 if max(map(max, points)) > 0.5 else max(map(max, points))  # small ones fill the chart too
    series = {"perfect": [(0.0, 0.0), (most, most)], **curves}
    return charts.curves("Share of predictions that are right", series, "predicted probability", "right", ends=False)


def _split(split: str, scores: Mapping[str, Any]) -> Markup:
    majority = scores.get("majority", {})
    names = [name.removesuffix("_precision") for name in scores if name.endswith("_precision")]
    rows = [[name, *(scores[f"{name}_{rate}"] for rate in ("precision", "recall", "f1")), majority.get(name)]
            for name in names]  # fmt: skip
    rows.append(["all", scores["precision"], scores["recall"], scores["f1"], None])
    sentence = f"The F1 of a listing's set is {_percent(scores['set_f1'])} on average"
    if "calibration" in scores:
        sentence += f", the expected calibration error {scores['calibration']['ece']:.3f}"
    combined = ""
    if unseen := scores.get("unseen", {}):
        true = scores.get("true_unseen", {})
        listed = (
            f"{name}: {_percent(share)}, of true labels {_percent(true.get(name))}" for name, share in unseen.items()
        )
        combined = parts.note(f"Listings with two values that no train listing has together: {'; '.join(listed)}.")
    head = ("Field", "Precision", "Recall", "F1", "Most frequent value")
    cells = [[name, *map(_percent, values)] for name, *values in rows]
    return parts.joined(
        parts.heading(f"{split}, {scores['num_listings']:,} listings"),
        parts.reading(f"{sentence}."),
        parts.table(head, cells, f"Predicted attributes of {split}", numbers=range(1, 5)),
        combined,
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"
