"""Whose images a facility has and where: who may not be read at all.

Article 5(1)(f) of Regulation (EU) 2024/1689, the AI Act, prohibits inferring emotions of people at
work and in education. fer-batch serves no medical or safety purpose, so the exceptions of that
article do not apply to it. The permission and its dates are left to registry.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal, get_args

Audience = Literal[
    "customers",
    "visitors",
    "guests",
    "passengers",
    "patients",
    "residents",
    "staff",
    "applicants",
    "pupils",
    "students",
]
"""The people whom the cameras record."""

AT_WORK_OR_IN_EDUCATION: tuple[Audience, ...] = ("staff", "applicants", "pupils", "students")
"""Applicants belong to the workplace: the prohibition covers recruitment."""

ARTICLE = "Article 5(1)(f) of Regulation (EU) 2024/1689"


def _split_codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


EU = "EU"
"""The jurisdiction of a facility in a member state that is not named."""
_MEMBERS = _split_codes(
    "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
)
_PARTS_OF_MEMBERS = _split_codes("AX GF GP MF MQ RE YT")
"""Åland and the outermost regions of France: EU law applies, but they have codes of their own."""
_OTHERS_OF_EEA = _split_codes("IS LI NO")
"""The regulation is a text with EEA relevance, so it is taken to apply there too."""

COUNTRIES = _split_codes(
    """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR
    BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ
    EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW
    GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY
    KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV
    MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY
    QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG
    TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA
    ZM ZW
    """
)
"""ISO 3166-1 alpha-2, and XK, which is in use for Kosovo."""
_OTHER_NAMES = {"UK": "GB", "EL": "GR", "EEA": EU}


def sort_audience(audience: Iterable[Audience]) -> tuple[Audience, ...]:
    """The audience without duplicates, in the order of `Audience`."""
    named = set(audience)
    return tuple(each for each in get_args(Audience) if each in named)


def check_jurisdiction(code: str) -> str:
    """The code in capitals. Raises ValueError if it is neither a country's nor EU."""
    upper = code.strip().upper()
    if upper in COUNTRIES or upper == EU:
        return upper
    hint = f" (did you mean {_OTHER_NAMES[upper]}?)" if upper in _OTHER_NAMES else ""
    raise ValueError(
        f"must be a country code of ISO 3166-1 with two letters, such as DE, or EU, not {code!r}"
        f"{hint}"
    )


def is_in_eea(jurisdiction: str) -> bool:
    """Whether the AI Act is taken to apply: in the EU, Iceland, Liechtenstein and Norway."""
    return jurisdiction in {EU, *_MEMBERS, *_PARTS_OF_MEMBERS, *_OTHERS_OF_EEA}


def find_prohibition(audience: Collection[Audience], jurisdiction: str | None) -> str | None:
    """Why this audience may not be read there, or None if it may.

    One prohibited group suffices. Without a jurisdiction, the strictest is assumed.
    """
    groups = [each for each in AT_WORK_OR_IN_EDUCATION if each in audience]
    if not groups or (jurisdiction is not None and not is_in_eea(jurisdiction)):
        return None
    names = " and ".join(groups)
    if jurisdiction is None:
        return (
            f"{names} may not be read without a jurisdiction: in the EU, {ARTICLE} prohibits "
            "emotion recognition at work and in education"
        )
    place = "the EU" if jurisdiction == EU else f"{jurisdiction}, which is in the EU or the EEA"
    return (
        f"{names} may not be read in {place}: {ARTICLE} prohibits emotion recognition at work and "
        "in education"
    )
