"""The model card as a page: prose that does not change, and tables made of the figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Template

from addiffusion.config.sampling import SOLVER_TITLES
from addiffusion.embedded.world.scenes import TIERS
from addiffusion.files import write_text
from evaluation.model_card.drawing import CardRunner, Setting
from evaluation.model_card.model_card import ModelCard
from evaluation.model_card.pictures import draw_curves, draw_few_steps, draw_grid
from evaluation.model_card.targets import targets
from evaluation.significance.tables import pipe_table

TEMPLATE = Path(__file__).with_name("page.md")


def write_page(card: ModelCard, runner: CardRunner, path: Path) -> list[Path]:
    """Writes the page to ``path`` and its pictures into a folder of the same name beside it; returns all files."""
    pictures = path.with_suffix("")
    files = [
        *(draw_grid(runner, card.guidance, tier, pictures / f"tier{tier}.png") for tier in TIERS),
        draw_few_steps(runner, card.guidance, pictures / "few_steps.png"),
        draw_curves(card.curves, card.guidance, pictures / "curves.png"),
    ]
    write_text(path, page(card, pictures.name))
    return [path, *files]


def page(card: ModelCard, pictures: str) -> str:
    """The Markdown; ``pictures`` is the folder of the pictures relative to the page."""
    plan, quality, cost = card.plan, card.quality, card.cost
    clip, preference = card.scorers["clip"], card.scorers["preference"]
    dino, aesthetic = card.scorers["dino"], card.scorers["aesthetic"]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        pictures=pictures,
        guidance=f"{card.guidance:g}",
        full_steps=plan.full_steps,
        prompts=plan.prompts_per_tier,
        curve_prompts=plan.curve_prompts_per_tier,
        renders=plan.renders,
        slots=plan.slots,
        targets=_table(("target", "asked", "reached", ""), [target.row() for target in targets(card)]),
        quality=_table(
            ("", *(f"tier {tier}" for tier in TIERS)),
            [
                _tier_row("strict", quality, "strict_tier"),
                _tier_row("soft", quality, "soft_tier"),
                _tier_row("CLIP", quality, "clip_tier"),
                _tier_row("strict, unseen colour-shape pairs", quality, "compositional_strict_tier"),
                _tier_row("soft, unseen colour-shape pairs", quality, "compositional_soft_tier"),
            ],
        ),
        few=_table(
            ("", *(f"tier {tier}" for tier in TIERS)),
            [(f"DDIM-{steps}", *(f"{card.loss(steps, tier):.1%}" for tier in TIERS)) for steps in plan.few_steps],
        ),
        autoencoder=_table(
            ("", *(f"tier {tier}" for tier in TIERS)),
            [
                _tier_row("strict, clean renders", card.autoencoder, "clean_strict_tier"),
                _tier_row("strict, after the autoencoder", card.autoencoder, "strict_tier"),
                _tier_row("strict, as the policy sees it", card.autoencoder, "preview_strict_tier"),
                _tier_row("PSNR in dB", card.autoencoder, "psnr_db_tier", form=".1f"),
                _tier_row("PSNR in dB, as the policy sees it", card.autoencoder, "preview_psnr_db_tier", form=".1f"),
            ],
        ),
        static="\n\n".join(_static_table(card, guidance) for guidance in plan.guidances),
        along=_along_table(card),
        done=_done_table(card),
        progress=_progress_table(card),
        clip_recall=f"{clip['r_at_1_of_100']:.2f}",
        clip_hard=f"{clip['hard_negative']:.2f}",
        preference_clean=f"{preference['clean_above_corrupted']:.2f}",
        preference_contradiction=f"{preference['contradiction']:.2f}",
        dino_view=f"{dino['view_of_100']:.2f}",
        aesthetic_correlation=f"{aesthetic['correlation']:.2f}",
        cfg_step_ms=f"{cost['cfg_step_ms']:.1f}",
        preview_ms=f"{cost['preview_ms']:.1f}",
        decode_ms=f"{cost['decode_ms']:.1f}",
        scores_ms=f"{cost['scores_ms']:.1f}",
        load_s=f"{cost['load_s']:.1f}",
        weights_mb=f"{card.weights_mb:.1f}",
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return pipe_table(head, rows, texts=len(head)).rstrip()


def _tier_row(name: str, figures: dict[str, float], key: str, form: str = ".3f") -> tuple[str, ...]:
    return name, *(f"{figures[f'{key}{tier}']:{form}}" for tier in TIERS)


def _static_table(card: ModelCard, guidance: float) -> str:
    head = (f"guidance {guidance:g}", *(f"{steps}" for steps in card.plan.steps))
    rows = [
        (
            f"{SOLVER_TITLES[solver]}, tier {tier}",
            *(
                f"{card.curves.soft(Setting(solver=solver, steps=steps, guidance=guidance), tier):.3f}"
                for steps in card.plan.steps
            ),
        )
        for solver in card.plan.solvers
        for tier in TIERS
    ]
    return _table(head, rows)


def _along_table(card: ModelCard) -> str:
    own = [run for run in card.curves.full if run.guidance == card.guidance]
    length = card.plan.full_steps
    moments = sorted({max(1, round(length * share)) for share in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)})
    rows = [
        (f"{what}, tier {run.tier}", *(f"{getattr(run, key)[moment - 1]:.2f}" for moment in moments))
        for what, key in (("scene", "soft"), ("CLIP", "clip"))
        for run in own
    ]
    return _table(("step", *map(str, moments)), rows)


def _done_table(card: ModelCard) -> str:
    rows: list[tuple[str, ...]] = []
    for tier in TIERS:
        first, first_std, settled, settled_std = card.done(tier)
        rows.append((f"tier {tier}", f"{first:.1f} ± {first_std:.1f}", f"{settled:.1f} ± {settled_std:.1f}"))
    return _table(("", "first within 1 %", "stays within 1 %"), rows)


def _progress_table(card: ModelCard) -> str:
    moments = list(card.progress[0].means)
    rows = [
        (
            f"{score.name} to the last" if score.name == "dino" else score.name,
            *(f"{score.means[moment]:.3g}" for moment in moments),
            f"{score.unit:.3g}",
        )
        for score in card.progress
    ]
    return _table(("step", *map(str, moments), "unit"), rows)
