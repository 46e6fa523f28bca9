"""The lifecycle rule that the privacy page shows fits, by what `fer-batch check` checks."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

from fer_batch.cli.doctor import LOOKBACK_DAYS
from fer_batch.settings import Settings
from fer_batch.storage.bucket_rules import BucketRules, ImageNeeds, judge


def test_the_example_of_the_privacy_page_fits(repo_root: Path) -> None:
    page = (repo_root / "docs" / "privacy.md").read_text(encoding="utf-8")
    section = page.partition("### Images in the bucket")[2].partition("\n## ")[0]
    (example,) = re.findall("```json\n(.*?)```", section, re.DOTALL)
    rules = json.loads(example)["Rules"]
    needs = ImageNeeds(
        ["north-mall/"], LOOKBACK_DAYS, Settings.model_fields["retention_days"].default
    )
    told = BucketRules(rules, is_versioned=True)
    assert judge(told, needs, date(2026, 11, 30)) == []
    text = " ".join(section.split())
    assert (
        f"at least {needs.scored_days}: an image is surely scored {needs.scored_days} days" in text
    )
    assert f"the lookback of {LOOKBACK_DAYS} days" in text


def test_the_lookback_is_that_of_the_nightly_dags(repo_root: Path) -> None:
    dag = (repo_root / "dags" / "satisfaction_nightly.py").read_text(encoding="utf-8")
    assert re.findall(r'"lookback_days": Param\(\s*(?:default=)?(\d+)', dag) == [str(LOOKBACK_DAYS)]
