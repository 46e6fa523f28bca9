"""Does a stated probability come true as often as it says? For p_happy / (p_happy + p_sad).

Measures it on labelled rows and draws it as a reliability diagram. Making probabilities come
true is left to training, which rows are looked at to evaluation.py.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
RESAMPLES = 1000
_SEED = 2013

METHOD = (
    "Expected calibration error (Naeini et al. 2015): rows sorted by p = p_happy / (p_happy + "
    f"p_sad) and cut into {BINS} bins of equal mass; the mean over rows of the distance between a "
    f"bin's mean p and its share of Happy. Interval: 2.5 % and 97.5 % of {RESAMPLES} bootstrap "
    "resamples of the rows, binned anew. Chance alone makes the error of small bins positive, "
    "and resampling adds to it: ece_if_perfect is the mean over as many draws of labels that come "
    "true exactly as p says."
)


def calibration(p_happy: NDArray[np.float64], is_happy: NDArray[np.bool_]) -> dict[str, Any]:
    """Figures of N rows: `p_happy` [N] of Happy against Sad, 0 to 1; `is_happy` [N] the label.

    Keys: `ece`, its interval `ece_low` and `ece_high`, `ece_if_perfect`, `bins` in the order of
    `confidence` (mean p) with `share_happy` and `rows`, `method`. None and no bins without rows.
    """
    order = np.argsort(p_happy, kind="stable")
    p, happy = p_happy[order].astype(np.float64), is_happy[order].astype(np.float64)
    rows = len(p)
    if rows == 0:
        nothing = dict.fromkeys(("ece", "ece_low", "ece_high", "ece_if_perfect"))
        return {**nothing, "bins": [], "method": METHOD}
    starts = _starts(rows)
    rng = np.random.default_rng(_SEED)
    resampled, perfect = np.empty(RESAMPLES), np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        # Sorted row numbers are sorted by p as well.
        chosen = np.sort(rng.integers(rows, size=rows))
        resampled[number] = _error(p[chosen], happy[chosen], starts)
        perfect[number] = _error(p, rng.random(rows) < p, starts)
    low, high = np.quantile(resampled, (0.025, 0.975))
    counts = np.diff(starts, append=rows)
    return {
        "ece": _error(p, happy, starts),
        "ece_low": float(low),
        "ece_high": float(high),
        "ece_if_perfect": float(perfect.mean()),
        "bins": [
            {"confidence": float(confidence), "share_happy": float(share), "rows": int(count)}
            for confidence, share, count in zip(
                np.add.reduceat(p, starts) / counts,
                np.add.reduceat(happy, starts) / counts,
                counts,
                strict=True,
            )
        ],
        "method": METHOD,
    }


def _starts(rows: int) -> NDArray[np.intp]:
    """Where each bin begins; with fewer rows than bins, each row is one."""
    bins = min(BINS, rows)
    return np.arange(bins, dtype=np.intp) * rows // bins


def _error(p: NDArray[np.float64], happy: NDArray[Any], starts: NDArray[np.intp]) -> float:
    """Of rows sorted by p. A bin's weight is its rows, so sums need no division by them."""
    return float(np.abs(np.add.reduceat(p - happy, starts)).sum() / len(p))


def diagram(figures: Mapping[str, Any], title: str) -> bytes:
    """What `calibration` found as a PNG: each bin against the diagonal, below it the rows.

    The bar of a point is the 95 % interval of its share (Wilson 1927).
    """
    from matplotlib.figure import Figure

    bins = figures["bins"]
    p = np.array([one["confidence"] for one in bins])
    share = np.array([one["share_happy"] for one in bins])
    rows = np.array([one["rows"] for one in bins], np.float64)
    figure = Figure(figsize=(6, 7.2), dpi=150, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    upper.plot((0, 1), (0, 1), color="0.5", linestyle="--", label="comes true exactly")
    if len(bins):
        centre, half = _wilson(share, rows)
        upper.vlines(p, centre - half, centre + half, color="tab:blue", alpha=0.5)
        upper.plot(p, share, "o", color="tab:blue", markersize=5, label="one bin, 95 % interval")
        lower.step((0, *p, 1), (0, *np.cumsum(rows), rows.sum()), where="post", color="tab:blue")
        lower.plot(p, np.cumsum(rows), "o", color="tab:blue", markersize=3)
        least, most = int(rows.min()), int(rows.max())
        each = str(least) if least == most else f"{least} or {most}"
        title = (
            f"{title}\nECE {figures['ece']:.4f} ({figures['ece_low']:.4f} to "
            f"{figures['ece_high']:.4f}), {len(bins)} bins of {each} rows"
        )
    upper.set_title(title.replace("$", r"\$"), fontsize=10)
    upper.set_ylabel("share labelled Happy")
    upper.legend(loc="upper left", frameon=False)
    upper.set_xlim(-0.02, 1.02)
    upper.set_ylim(-0.02, 1.02)
    lower.set_ylabel("rows up to p")
    lower.set_ylim(bottom=0)
    lower.set_xlabel("p = p_happy / (p_happy + p_sad)")
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    return drawn.getvalue()


def _wilson(
    share: NDArray[np.float64], rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre and half width of the 95 % interval of shares of so many rows."""
    z = 1.959964
    scale = 1 / (1 + z**2 / rows)
    centre = (share + z**2 / (2 * rows)) * scale
    half = z * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2)) * scale
    return centre, half
