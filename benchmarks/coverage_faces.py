"""`python -m benchmarks.coverage_faces ARCHIVE`: what an audit is worth on real faces.

Shops are mixed from the faces of FER2013's PrivateTest, as in `fer-batch demo --fer2013 ARCHIVE
--shop`. The shipped CNN classifies them. For each shop an audit is drawn from the first two weeks
and "labeled" by the FER+ voters; the days and weeks after it are estimated with and without the
audit. The truth is the rate of the shop by the plurality of all ten voters.

Three kinds of labels are compared: the answer of one voter (a single rater), two voters of whom a
third settles the disagreements (the procedure of an audit with two raters), and the plurality of
all ten. A day has no face twice; other days may show it again, because PrivateTest is small.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.coverage import Tally
from benchmarks.measuring import build_result_path, describe_machine, write_json
from benchmarks.simulated_faces import Ints, count_clusters, find_sessions
from fer_batch.audit.agreement import Kappa, compute_kappa
from fer_batch.local.demo.fer2013_shop import FACILITIES, TRAFFIC, Faces, draw_mix, load_faces
from fer_batch.local.demo.visits import Mix, draw_visits
from fer_batch.model.classifier import Classifier, find_shipped_card, load_artifact
from fer_batch.model.confusion import count_confusion, find_plurality
from fer_batch.model.fer2013 import HAPPY, SAD, VOTES_OF_CLASS
from fer_batch.model.probabilities import call_classes
from fer_batch.satisfaction.estimator import ClusterTotals, estimate
from fer_batch.satisfaction.intervals import Floats
from fer_batch.settings import Settings

SEED = 20_261_201
AUDIT_DAYS, DAYS, WEEK = 14, 14, 7
"""An audit is drawn from the first days; the days after them are estimated."""
LABELS = (200, 500, 1_000)
RATERS = ("one voter", "two voters, a third settles", "all ten voters")
HAPPY_COLUMN, SAD_COLUMN = VOTES_OF_CLASS[HAPPY], VOTES_OF_CLASS[SAD]


@dataclass(frozen=True, slots=True)
class Population:
    """The faces with what each is called, and what its voters said."""

    faces: Faces
    called: Ints
    """[N] 0 happy, 1 sad, 2 neither."""
    true: Ints
    """[N] the same by the plurality of ten voters."""
    card: Floats

    @classmethod
    def load(cls, archive: Path) -> Population:
        """Classify PrivateTest with the shipped CNN."""
        faces, cnn = load_faces(archive), load_artifact(find_shipped_card())
        if cnn.card.confusion is None:
            raise ValueError("the shipped card has no confusion matrix")
        classifier = Classifier(Settings(_env_file=None), cnn)
        scores = classifier.classify(faces.pixels)
        called = call_classes(scores.probabilities, classifier.rule)
        return cls(faces, called, find_plurality(faces.votes), cnn.card.confusion)

    def label(self, rows: Ints, raters: str, rng: np.random.Generator) -> Ints:
        """[n] the labels of some faces: 0 happy, 1 sad, 2 neither, as `raters` would give them."""
        if raters == "all ten voters":
            return self.true[rows]
        first, second, third = (self._ask(rows, rng) for _ in range(3))
        if raters == "one voter":
            return first
        return np.where(first == second, first, third)

    def _ask(self, rows: Ints, rng: np.random.Generator) -> Ints:
        """[n] the answer of one voter about each face."""
        return draw_answers(self._count_votes()[rows], rng)

    def _count_votes(self) -> Ints:
        """[N,3] votes for happy, sad, and anything else, which is neither."""
        votes = self.faces.votes
        happy, sad = votes[:, HAPPY_COLUMN], votes[:, SAD_COLUMN]
        return np.stack([happy, sad, votes.sum(axis=1) - happy - sad], axis=1)

    def compare_two_voters(self, rng: np.random.Generator) -> Kappa | None:
        """How far two different voters of each face agree."""
        votes = self._count_votes()
        first = draw_answers(votes, rng)
        votes[np.arange(len(votes)), first] -= 1
        second = draw_answers(votes, rng)
        return compute_kappa(count_confusion(first, second))


def draw_answers(votes: Ints, rng: np.random.Generator) -> Ints:
    """[n] the answer of one voter, drawn from `votes` [n,3]."""
    drawn = rng.random((len(votes), 1)) * votes.sum(axis=1, keepdims=True)
    answers: Ints = (drawn >= votes[:, :2].cumsum(axis=1)).sum(axis=1)
    return answers


def draw_day(
    population: Population, mix: Mix, rng: np.random.Generator
) -> tuple[Ints, list[ClusterTotals]]:
    """The rows of a day's faces, and their totals by sessions and by blocks."""
    photographs = list(itertools.chain.from_iterable(draw_visits(rng, TRAFFIC, mix)))
    rows = np.array(list(population.faces.draw_rows(rng, photographs)), np.int64)
    times = np.array([photograph.second for photograph in photographs], float)
    cameras = np.array([TRAFFIC.cameras.index(photograph.camera) for photograph in photographs])
    order = np.argsort(times, kind="stable")
    session = find_sessions(times[order], cameras[order])
    return rows, count_clusters(population.called[rows[order]], session)


def add_up(days: Sequence[list[ClusterTotals]]) -> list[ClusterTotals]:
    """The totals of a week."""
    added = days[0]
    for day in days[1:]:
        added = [one + other for one, other in zip(added, day, strict=True)]
    return added


def simulate_shop(
    population: Population, rng: np.random.Generator, tallies: dict[tuple[str, int, str], Tally]
) -> None:
    """Add the intervals of a shop to `tallies`, by raters, labels and period."""
    mix = draw_mix(rng)
    window = np.concatenate([draw_day(population, mix, rng)[0] for _ in range(AUDIT_DAYS)])
    days = [draw_day(population, mix, rng)[1] for _ in range(DAYS)]
    weeks = [add_up(days[start : start + WEEK]) for start in range(0, DAYS, WEEK)]
    audits: dict[tuple[str, int], Floats | None] = {("nobody", 0): None}
    for raters, labels in itertools.product(RATERS, LABELS):
        sample = rng.choice(window, labels, replace=False)
        counts = count_confusion(population.label(sample, raters, rng), population.called[sample])
        audits[raters, labels] = np.array(counts, float)
    for (raters, labels), local in audits.items():
        for name, periods in (("day", days), ("week", weeks)):
            tally = tallies.setdefault((raters, labels, name), Tally())
            for period in periods:
                estimated = estimate(period, population.card, local)
                tally.add("happy_rate", estimated.happy, mix.happy)
                tally.add("sad_rate", estimated.sad, mix.sad)


def print_table(results: Sequence[Mapping[str, Any]]) -> None:
    """The Markdown table of docs/statistics.md: coverage, and in parentheses the median width."""
    columns = list(itertools.product(("happy_rate", "sad_rate"), ("day", "week")))
    titles = [f"`{figure}`, {period}" for figure, period in columns]
    print(f"\n| labels by | labels | {' | '.join(titles)} |\n|---|---|---|---|---|---|")
    for row in results:
        cells = [
            "{coverage:.3f} ({width:.2f})".format(**row[period][figure])
            for figure, period in columns
        ]
        print(f"| {row['raters']} | {row['labels']:,} | {' | '.join(cells)} |")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage_faces",
                                     description=__doc__)  # fmt: skip
    parser.add_argument("archive", type=Path, help="fer2013.tar.gz, with fer2013new.csv next to it")
    parser.add_argument("--quick", action="store_true", help="only test that it runs")
    args = parser.parse_args()
    machine, population = describe_machine(), Population.load(args.archive)
    tallies: dict[tuple[str, int, str], Tally] = {}
    shops = 2 if args.quick else FACILITIES
    for seed in np.random.SeedSequence(SEED).spawn(shops):
        simulate_shop(population, np.random.default_rng(seed), tallies)
    results = [
        {
            "raters": raters,
            "labels": labels,
            **{period: tallies[raters, labels, period].summarize() for period in ("day", "week")},
        }
        for raters, labels in dict.fromkeys(key[:2] for key in tallies)
    ]
    print_table(results)
    kappa = population.compare_two_voters(np.random.default_rng(SEED))
    print(f"\nCohen's kappa of two voters of each of {len(population.true):,} faces: {kappa}")
    path = build_result_path("coverage_faces.json", is_quick=args.quick)
    write_json(
        path,
        {
            "machine": machine,
            "seed": SEED,
            "shops": shops,
            "results": results,
            "kappa_of_two_voters": None if kappa is None else asdict(kappa),
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
