"""The results page's section about policies at many settings: what does not hold comes first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from evaluation.comparison.across import FULL, RIVALS, RIVALS_WITHOUT, SettingRow, markdown_settings
from evaluation.comparison.forest import FOREST
from evaluation.comparison.tables import METRIC_TITLES
from evaluation.report.page_sections import PICTURES, mark

MARK = mark("every setting", "addiffusion settings")


def settings_section(
    policies: Sequence[SettingRow],
    settings: Mapping[str, Sequence[SettingRow]],
    without: Sequence[SettingRow] = (),
    *,
    metric: str,
    command: str,
    machine: str,
) -> str:
    """Markdown of the section.

    Args:
        policies: a row for each policy, and their mean where there are several.
        settings: rows of the settings by policy, and their mean where there are several.
        without: with all actions, and without some, where that was asked for.
        metric: the score that is compared.
        command: that made the comparisons, word for word.
        machine: that it ran on, in words.
    """
    title = METRIC_TITLES.get(metric, metric)
    words = (
        f"Written by `{command}` on {machine}: the same prompts and seeds in every row, one image each. *holds*: shown "
        f"to lose less than 1 % of its whole schedule's {title} score. Differences in {title} with 95 % BCa intervals "
        "over prompts, whose scores are averaged over settings and policies first; bold: none by chance at 5 %, "
        "corrected by Holm over its table. Rivals but the whole schedule have the policy's own mean NFE at that "
        "setting; the best guidance scale of a static sampler is chosen by these very images, in its favour."
    )
    picture = f"![Differences at each setting, and on average over settings]({PICTURES}/{FOREST})"
    parts = [MARK, "## Every setting", words, "### What does not hold", _listed(_failures(policies, settings)), picture]
    if len(policies) > 1:
        parts += ["### Policies", markdown_settings(policies, metric, first="policy").strip()]
    if without:
        told = (
            "Actions taken from trained policies, which go on with what they learned with them, on average over "
            "settings and policies."
        )
        table = markdown_settings(without, metric, first="actions", rivals=RIVALS_WITHOUT).strip()
        parts += ["### Without an action", told, table]
    for name, rows in settings.items():
        parts += [f"### {name}", markdown_settings(rows, metric).strip()]
    return "\n\n".join(parts) + "\n"


def _failures(policies: Sequence[SettingRow], settings: Mapping[str, Sequence[SettingRow]]) -> Iterable[str]:
    """First what is not shown at a setting, then what is not shown on average over the settings."""
    for name, rows in settings.items():
        for row in rows:
            if row.holds == (0, 1):
                found = row.against.get(FULL)
                by = "" if found is None else f": {found.brief()}"
                yield f"{name} at {row.title or 'its setting'}, against its whole schedule by 1 %{by}"
    for row in policies:
        for rival, words in RIVALS.items():
            found = row.against.get(rival)
            if found is not None and not found.interval.low > 0:
                yield f"{row.title}, better than {words}: {found.brief()}"


def _listed(lines: Iterable[str]) -> str:
    told = [f"* {line}." for line in lines]
    return "\n".join(told) if told else "Nothing of what is asked here."
