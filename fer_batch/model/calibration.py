"""Calibration errors of probabilities, and a reliability diagram of Happy against Sad.

A calibrated probability p is right in a share p of the cases. Two kinds are measured: the CNN's own
p = happy / (happy + sad) against labels, and p_happy, p_sad and p_neither against shares of voters.
Calibrating a CNN is left to training/platt_scaling.py and training/vote_calibration.py, selecting
the rows to evaluation.py.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_batch.errors import ConfigurationError

BINS = 15
RESAMPLES = 1000
_SEED = 2013

METHOD = (
    # The card stores this text with the figures.
    "Expected calibration error (Naeini et al. 2015): rows sorted by p = p_happy / (p_happy + "
    f"p_sad) and cut into {BINS} bins of equal mass; the mean over rows of the distance between a "
    f"bin's mean p and its share of Happy. Interval: 2.5 % and 97.5 % of {RESAMPLES} bootstrap "
    "resamples of the rows, binned anew. Chance alone makes the error of small bins positive, "
    "and resampling adds to it: ece_if_perfect is the mean over as many draws of labels that come "
    "true exactly as p says."
)


def measure_calibration(
    p_happy: NDArray[np.float64], is_happy: NDArray[np.bool_]
) -> dict[str, Any]:
    """The expected calibration error (Naeini, Cooper, Hauskrecht 2015) of N rows.

    `p_happy` float64 [N] is the probability of Happy against Sad, 0 to 1; `is_happy` bool [N] is
    the label. Keys: `ece` (0 to 1), its 95 % bootstrap interval `ece_low` and `ece_high`,
    `ece_if_perfect` (the expected value for a perfectly calibrated model), `bins` sorted by
    `confidence` (mean p) with `share_happy` and `rows`, and `method`. Without rows the figures are
    None and `bins` is empty.
    """
    order = np.argsort(p_happy, kind="stable")
    p, happy = p_happy[order].astype(np.float64), is_happy[order].astype(np.float64)
    rows = len(p)
    if rows == 0:
        no_figures = dict.fromkeys(("ece", "ece_low", "ece_high", "ece_if_perfect"))
        return {**no_figures, "bins": [], "method": METHOD}
    starts = _find_bin_starts(rows)
    rng = np.random.default_rng(_SEED)
    resampled, perfect = np.empty(RESAMPLES), np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        # The rows are sorted by p, so sorting their indices keeps the resample sorted by p.
        sample = np.sort(rng.integers(rows, size=rows))
        resampled[number] = _compute_error(p[sample], happy[sample], starts)
        perfect[number] = _compute_error(p, rng.random(rows) < p, starts)
    low, high = np.quantile(resampled, (0.025, 0.975))
    counts = np.diff(starts, append=rows)
    return {
        "ece": _compute_error(p, happy, starts),
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


def measure_share_error(p: NDArray[Any], share: NDArray[Any]) -> float | None:
    """The expected calibration error (0 to 1) of probabilities `p` [N] against the shares of voters
    `share` [N] that they estimate, each 0 to 1; None without rows.

    The mean over rows of the distance between a bin's mean p and its mean share, over `BINS` bins
    of equal count by p.
    """
    if len(p) == 0:
        return None
    order = np.argsort(p, kind="stable")
    sorted_p, sorted_share = p[order].astype(np.float64), share[order].astype(np.float64)
    return _compute_error(sorted_p, sorted_share, _find_bin_starts(len(p)))


def _find_bin_starts(rows: int) -> NDArray[np.intp]:
    """The index of the first row of each bin; with fewer rows than bins, each row is a bin."""
    bins = min(BINS, rows)
    return np.arange(bins, dtype=np.intp) * rows // bins


def _compute_error(p: NDArray[np.float64], happy: NDArray[Any], starts: NDArray[np.intp]) -> float:
    """The calibration error of rows sorted by p.

    A bin is weighted by its number of rows, so sums per bin replace means times weights.
    """
    return float(np.abs(np.add.reduceat(p - happy, starts)).sum() / len(p))


def check_can_draw() -> None:
    """Raise ConfigurationError if the package that draws diagrams is not installed."""
    if find_spec("matplotlib") is None:
        raise ConfigurationError(
            "a reliability diagram needs matplotlib",
            "Install fer-batch with the extra `train`; see docs/deploy.md",
        )


def draw_reliability_diagram(figures: Mapping[str, Any], title: str) -> bytes:
    """The reliability diagram of `measure_calibration`'s result, as the bytes of a PNG.

    The upper part shows the share of Happy in each bin against its mean p, with a 95 % interval
    (Wilson 1927) and the diagonal of perfect calibration; the lower part shows the cumulative
    number of rows.
    """
    from matplotlib.figure import Figure

    bins = figures["bins"]
    p = np.array([bin_["confidence"] for bin_ in bins])
    share = np.array([bin_["share_happy"] for bin_ in bins])
    rows = np.array([bin_["rows"] for bin_ in bins], np.float64)
    figure = Figure(figsize=(6, 7.2), dpi=150, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    upper.plot((0, 1), (0, 1), color="0.5", linestyle="--", label="perfect calibration")
    if len(bins):
        center, half = _compute_wilson(share, rows)
        upper.vlines(p, center - half, center + half, color="tab:blue", alpha=0.5)
        upper.plot(p, share, "o", color="tab:blue", markersize=5, label="one bin, 95 % interval")
        lower.step((0, *p, 1), (0, *np.cumsum(rows), rows.sum()), where="post", color="tab:blue")
        lower.plot(p, np.cumsum(rows), "o", color="tab:blue", markersize=3)
        least, most = int(rows.min()), int(rows.max())
        rows_per_bin = str(least) if least == most else f"{least} or {most}"
        title = (
            f"{title}\nECE {figures['ece']:.4f} ({figures['ece_low']:.4f} to "
            f"{figures['ece_high']:.4f}), {len(bins)} bins of {rows_per_bin} rows"
        )
    upper.set_title(title.replace("$", r"\$"), fontsize=10)
    upper.set_ylabel("share labeled Happy")
    upper.legend(loc="upper left", frameon=False)
    upper.set_xlim(-0.02, 1.02)
    upper.set_ylim(-0.02, 1.02)
    lower.set_ylabel("cumulative rows")
    lower.set_ylim(bottom=0)
    lower.set_xlabel("p = p_happy / (p_happy + p_sad)")
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()


def _compute_wilson(
    share: NDArray[np.float64], rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Center and half width of the 95 % score interval (Wilson 1927) of each bin's share."""
    z = 1.959964
    scale = 1 / (1 + z**2 / rows)
    center = (share + z**2 / (2 * rows)) * scale
    half = z * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2)) * scale
    return center, half
