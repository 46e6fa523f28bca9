"""`python -m benchmarks.coverage`: how often the published intervals contain the true rates.

Periods of known rates are simulated, estimated as the nightly run does, and compared with the
truth; nothing is suppressed. 36 combinations of true rates and sizes are crossed with audit
situations, with 1,000 replicates each. In each replicate the faces, the card's confusion matrix and
the local audit are drawn anew. Audits of 100 to 1,000 labels, in facilities whose faces differ from
the benchmark's, are simulated for days, weeks and four weeks. Differences of two periods, the false
discovery rate of changes, and busy shops whose sessions are found from capture times are simulated
as well.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.coverage_chart import draw_chart
from benchmarks.coverage_tables import judge, print_tables
from benchmarks.measuring import (
    build_result_path,
    count_usable_cores,
    describe_machine,
    write_json,
)
from benchmarks.simulated_faces import Shop, Size, draw_period, draw_shop_day, normalize_rows
from fer_batch.model.classifier import find_shipped_card
from fer_batch.satisfaction.change import Difference, compute_change, compute_q_values
from fer_batch.satisfaction.estimator import Rate, estimate
from fer_batch.satisfaction.intervals import Floats

CHART = Path(__file__).parents[1] / "docs" / "images" / "coverage.png"
SEED = 20_261_130
REPLICATES = 1_000
NEUTRAL = (0.3, 0.7)
HAPPY_OF_EXPRESSIVE = (0.5, 0.85, 0.95)
SIZES = (
    Size(60, 10, 0.3),
    Size(120, 15, 0.7),
    Size(100, 100, 0),
    Size(300, 60, 0.5),
    Size(300, 20, 0.3),
    Size(2000, 400, 0.7),
)
DAY, WEEK, FOUR_WEEKS = Size(300, 60, 0.5), Size(2_100, 420, 0.5), Size(8_400, 1_680, 0.5)
AUDITED_SIZES = (Size(120, 15, 0.7), Size(300, 20, 0.3), DAY, WEEK, FOUR_WEEKS)
LABELS = (0, 100, 200, 500, 1_000)
"""The numbers of labeled faces of an audited facility; 0 is the card alone."""
AUDIT_MIX = np.array([0.385, 0.115, 0.5])
"""True classes of audited faces: the mean of the simulated mixes, not that of the period."""
LOCAL_LABELS = 200
MATCHING_FACES = 600  # of each true class
LARGER_HAPPY = np.array([0.1, 0.0, -0.1])  # the change from the earlier period, in half of them

Q_VALUE = 0.05

NIGHTS, FACILITIES = 400, 50
CHANGED_SHARES = (0.0, 0.2)
SHOPS = (
    Shop(60, 0.7, has_long_visits=True, frame_every_s=None),
    Shop(300, 0.3, has_long_visits=False, frame_every_s=None),
    Shop(300, 0.7, has_long_visits=True, frame_every_s=5),
    Shop(1000, 0.7, has_long_visits=True, frame_every_s=5),
)
SHOP_DAYS = 400
SHOP_MIX = np.array([0.26, 0.04, 0.7])


@dataclass(frozen=True, slots=True)
class Situation:
    """What the estimator knows of the classifier, and whether the card fits the facility."""

    name: str
    is_judged: bool  # by the thresholds
    facility: str
    """Whose faces the facility has: a key of `Classifier.matrices`."""
    matching_faces: int = 0
    local_labels: int = 0


CARD, ELSEWHERE = "card", "20 px, another labeling"
SHIFTED = ("happy recall −0.10", "another labeling", "20 px")
"""Facilities that differ from the benchmark in one way each."""
SITUATIONS = (
    Situation("600 audited faces of each class", is_judged=True, facility=CARD,
              matching_faces=MATCHING_FACES),
    Situation("elsewhere, card and 200 local labels", is_judged=True, facility=ELSEWHERE,
              local_labels=LOCAL_LABELS),
    Situation("card alone, which fits", is_judged=False, facility=CARD),
    Situation("elsewhere, card alone", is_judged=False, facility=ELSEWHERE),
)  # fmt: skip
AUDITS = tuple(
    Situation(f"{facility}, {labels:,} labels", is_judged=False, facility=facility,
              local_labels=labels)
    for facility, labels in itertools.product(SHIFTED, LABELS)
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Classifier:
    """The confusion matrices [3,3], in counts: that of the card, and those of other facilities."""

    matrices: Mapping[str, Floats]

    @classmethod
    def from_card(cls, path: Path) -> Classifier:
        """Read a model card. Raises KeyError if it has no confusion matrices by the votes."""
        confusions = json.loads(path.read_text())["confusions"]
        public, private = (confusions[split] for split in ("PublicTest", "PrivateTest"))
        matrices = {
            CARD: public["plurality"]["48"],
            ELSEWHERE: private["kaggle"]["20"],
            "another labeling": private["kaggle"]["48"],
            "20 px": private["plurality"]["20"],
        }
        counts = {name: np.array(matrix, float) for name, matrix in matrices.items()}
        return cls(counts | {"happy recall −0.10": lower_recall(counts[CARD], 0.1)})

    @property
    def card(self) -> Floats:
        return self.matrices[CARD]

    def get_true_rows(self, situation: Situation) -> Floats:
        """The probabilities of the called classes at the facility, by true class."""
        return normalize_rows(self.matrices[situation.facility])

    def draw_audit(
        self, situation: Situation, rng: np.random.Generator
    ) -> tuple[Floats | None, Floats | None]:
        """The card's confusion matrix and the local counts, drawn anew."""
        true_rows = self.get_true_rows(situation)
        if situation.matching_faces:
            return None, rng.multinomial(situation.matching_faces, true_rows).astype(float)
        faces = self.card.sum(axis=1).astype(int)
        card = rng.multinomial(faces, normalize_rows(self.card)).astype(float)
        if not situation.local_labels:
            return card, None
        labels = rng.multinomial(situation.local_labels, AUDIT_MIX)
        return card, rng.multinomial(labels, true_rows).astype(float)


def lower_recall(counts: Floats, difference: float) -> Floats:
    """The matrix [3,3] with fewer of the true happy faces called happy, by `difference` (0 to 1).

    They are called sad or neither, as the others that are missed.
    """
    lowered, happy = counts.copy(), counts[0]
    lowered[0, 0] -= difference * happy.sum()
    lowered[0, 1:] += difference * happy.sum() * happy[1:] / happy[1:].sum()
    return lowered


@dataclass(frozen=True, slots=True)
class Cell:
    """A combination of true rates, size and audit situation."""

    situation: Situation
    size: Size
    neutral: float
    happy_of_expressive: float

    @property
    def mix(self) -> Floats:
        """[3] the true happy, sad and neither rate."""
        expressive = 1 - self.neutral
        happy = expressive * self.happy_of_expressive
        return np.array([happy, expressive - happy, self.neutral])


def build_cells(situations: Sequence[Situation], sizes: Sequence[Size]) -> list[Cell]:
    return [
        Cell(*parts) for parts in itertools.product(situations, sizes, NEUTRAL, HAPPY_OF_EXPRESSIVE)
    ]


class Tally:
    """Counts how often an interval contains the truth, by name."""

    def __init__(self) -> None:
        self._hits: dict[str, list[bool]] = {}
        self._widths: dict[str, list[float]] = {}
        self._significant: dict[str, list[bool]] = {}

    def add(self, name: str, interval: Rate | Difference, truth: float) -> None:
        # Rounding errors must not count as misses where an end is exactly the truth.
        is_hit = interval.low - 1e-12 <= truth <= interval.high + 1e-12
        self._hits.setdefault(name, []).append(is_hit)
        self._widths.setdefault(name, []).append(interval.high - interval.low)
        if isinstance(interval, Difference):
            self._significant.setdefault(name, []).append(interval.p_value <= Q_VALUE)

    def summarize(self) -> dict[str, dict[str, float]]:
        """By name: `coverage`, median `width`, and `significant` (the share) for differences."""
        summary = {
            name: {
                "coverage": round(float(np.mean(hits)), 4),
                "width": round(float(np.median(self._widths[name])), 4),
            }
            for name, hits in self._hits.items()
        }
        for name, significant in self._significant.items():
            summary[name]["significant"] = round(float(np.mean(significant)), 4)
        return summary


def simulate_cell(
    cell: Cell, classifier: Classifier, replicates: int, seed: np.random.SeedSequence
) -> dict[str, Any]:
    """The coverage of each figure in a cell."""
    rng, tally = np.random.default_rng(seed), Tally()
    rows, mix = classifier.get_true_rows(cell.situation), cell.mix
    for _ in range(replicates):
        card, local = classifier.draw_audit(cell.situation, rng)
        period = draw_period(cell.size, mix, rows, rng)
        estimated = estimate(period, card, local)
        for name, rate, truth in (
            ("happy_rate", estimated.happy, mix[0]),
            ("sad_rate", estimated.sad, mix[1]),
            ("raw happy", estimated.called_happy, mix[0]),
            ("raw sad", estimated.called_sad, mix[1]),
        ):
            tally.add(name, rate, truth)
        if cell.situation.is_judged:
            for kind, shift in (("equal", 0 * LARGER_HAPPY), ("larger", LARGER_HAPPY)):
                later = draw_period(cell.size, mix + shift, rows, rng)
                change = compute_change(period, later, card, local)
                tally.add(f"happy change, {kind}", change.happy, shift[0])
                tally.add(f"sad change, {kind}", change.sad, shift[1])
    return {
        "situation": cell.situation.name,
        "is_judged": cell.situation.is_judged,
        "facility": cell.situation.facility,
        "labels": cell.situation.local_labels,
        "faces": cell.size.faces,
        "sessions": cell.size.sessions,
        "correlation": cell.size.correlation,
        "true_rates": [round(float(rate), 4) for rate in mix],
        "figures": tally.summarize(),
    }


def simulate_night(
    changed_share: float, classifier: Classifier, situation: Situation, rng: np.random.Generator
) -> tuple[int, int, int]:
    """Changes that are false, changes that are found, and changes that there are, of one night.

    All facilities share the card. Each has a size and a mix by chance. Among the facilities whose
    happy rate does not change, the sad rate of a half rises.
    """
    p_values, is_changed = [], rng.random(FACILITIES) < changed_share
    rows = classifier.get_true_rows(situation)
    card, _ = classifier.draw_audit(situation, rng)
    for has_change in is_changed:
        size = SIZES[rng.integers(len(SIZES))]
        mix = Cell(
            situation, size, float(rng.choice(NEUTRAL)), float(rng.choice(HAPPY_OF_EXPRESSIVE))
        ).mix
        _, local = classifier.draw_audit(situation, rng)
        other = np.array([0.0, 0.1, -0.1]) * rng.integers(2)
        shift = 2 * LARGER_HAPPY if has_change else other
        earlier, later = (draw_period(size, each, rows, rng) for each in (mix, mix + shift))
        p_values.append(compute_change(earlier, later, card, local).happy.p_value)
    is_found = compute_q_values(p_values) <= Q_VALUE
    return int((is_found & ~is_changed).sum()), int(is_found.sum()), int(is_changed.sum())


def simulate_nights(
    changed_share: float,
    situation: Situation,
    classifier: Classifier,
    nights: int,
    seed: np.random.SeedSequence,
) -> dict[str, Any]:
    """The false discovery rate over the changes of many nights."""
    rng = np.random.default_rng(seed)
    counts = [simulate_night(changed_share, classifier, situation, rng) for _ in range(nights)]
    false, found, changed = np.array(counts).T
    return {
        "situation": situation.name,
        "changed_share": changed_share,
        "nights": nights,
        "facilities": FACILITIES,
        "false_discovery_rate": round(float((false / np.maximum(found, 1)).mean()), 4),
        "found_of_changed": round(float((found - false).sum() / max(changed.sum(), 1)), 4),
    }


def simulate_shop(
    shop: Shop, classifier: Classifier, days: int, seed: np.random.SeedSequence
) -> dict[str, Any]:
    """The coverage of the called happy rate, which depends on the sessions alone."""
    rng, tally = np.random.default_rng(seed), Tally()
    sessions, shares = [], []
    rows = normalize_rows(classifier.card)
    for _ in range(days):
        day = draw_shop_day(shop, SHOP_MIX, rows, rng)
        estimated = estimate(day, None)
        tally.add("called_happy_rate", estimated.called_happy, float((SHOP_MIX @ rows)[0]))
        sessions.append(day[0].clusters)
        shares.append(1 / estimated.design_effect)
    return {
        "shop": str(shop),
        "days": days,
        "sessions": round(float(np.mean(sessions)), 1),
        "faces_effective_of_faces": round(float(np.mean(shares)), 3),
        **tally.summarize()["called_happy_rate"],
    }


def simulate_all(classifier: Classifier, scale: float) -> dict[str, list[dict[str, Any]]]:
    """All simulations, on all cores. The result does not depend on the number of cores."""
    cells, audited = build_cells(SITUATIONS, SIZES), build_cells(AUDITS, AUDITED_SIZES)
    nights = list(itertools.product(CHANGED_SHARES, [s for s in SITUATIONS if s.is_judged]))
    jobs_count = len(cells) + len(audited) + len(nights) + len(SHOPS)
    seeds = iter(np.random.SeedSequence(SEED).spawn(jobs_count))
    with ProcessPoolExecutor(count_usable_cores()) as pool:
        started = time.monotonic()
        jobs = {
            "false_discoveries": [
                pool.submit(simulate_nights, changed, situation, classifier,
                            max(2, int(NIGHTS * scale)), next(seeds))
                for changed, situation in nights
            ],
            "shops": [
                pool.submit(simulate_shop, shop, classifier, max(4, int(SHOP_DAYS * scale)),
                            next(seeds))
                for shop in SHOPS
            ],
            **{
                name: [
                    pool.submit(simulate_cell, cell, classifier,
                                max(10, int(REPLICATES * scale)), next(seeds))
                    for cell in of_name
                ]
                for name, of_name in (("cells", cells), ("audits", audited))
            },
        }  # fmt: skip
        results = {}
        for name, submitted in jobs.items():
            results[name] = [job.result() for job in submitted]
            print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only test that it runs")
    parser.add_argument("--card", type=Path, help="model card (default: the one that ships)")
    args = parser.parse_args()
    is_quick: bool = args.quick
    machine_facts = describe_machine()
    classifier = Classifier.from_card(args.card or find_shipped_card())
    results = simulate_all(classifier, 0.01 if is_quick else 1)
    print_tables(results)
    print()
    verdicts = list(judge(results))
    for sentence, is_met in verdicts:
        print(f"{'met    ' if is_met else 'NOT MET'}  {sentence}")
    path = build_result_path("coverage.json", is_quick=is_quick)
    write_json(
        path,
        {
            "is_quick": is_quick,
            "machine": machine_facts,
            "seed": SEED,
            "replicates": max(10, int(REPLICATES * (0.01 if is_quick else 1))),
            "confusions": {
                name: counts.round(1).tolist() for name, counts in classifier.matrices.items()
            },
            "thresholds": [{"sentence": text, "is_met": is_met} for text, is_met in verdicts],
            **results,
        },
    )
    chart = path.with_suffix(".png") if is_quick else CHART
    draw_chart(results["cells"], chart, is_quick=is_quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
