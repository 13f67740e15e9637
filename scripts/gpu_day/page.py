"""The GPU tables of docs/performance.md, made of gpu_day.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from addiffusion.errors import ConfigError
from addiffusion.files import write_text

BEGIN: Final = "<!-- measured by scripts/gpu_day.sh: begin -->"
END: Final = "<!-- measured by scripts/gpu_day.sh: end -->"

_ENGINES: Final = {
    f"engine_{shape}_{how}": f"{title}, {words}"
    for shape, title in (("sd15", "SD 1.5 shape, 512 px"), ("sdxl", "SDXL shape, 1024 px"))
    for how, words in (("eager", "eager"), ("compile", "torch.compile"), ("graphs", "CUDA graphs"))
}
_RATIOS: Final = {
    "engine_nfe_s": ("NFE/s", "{:.1f}"),
    "engine_over_bare": ("over bare network (at least 0.95)", "{:.2f}"),
    "engine_over_lockstep": ("over lock-step", "{:.2f}"),
    "engine_over_sequential": ("over one by one (at least 4)", "{:.2f}"),
    "engine_over_pipeline": ("over diffusers' pipeline", "{:.2f}"),
    "peak_frac": ("of the bf16 matmul peak", "{:.0%}"),
    "memory_peak_gb": ("memory, GB", "{:.1f}"),
}


def put_tables(page: Path, figures: Mapping[str, Any]) -> None:
    """Write the tables between their two marks.

    Raises:
        ConfigError: the page has no such marks.
    """
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ConfigError(f"{page} has no place for the tables: put the lines {BEGIN} and {END} there.")
    head, rest = text.split(BEGIN, 1)
    write_text(page, f"{head}{BEGIN}\n{tables(figures)}\n{END}{rest.split(END, 1)[1]}")


def tables(figures: Mapping[str, Any]) -> str:
    """All tables; a part without figures has its reason in its place."""
    parts = [f"On {figures['machine']['device']}, torch {figures['machine']['torch']}, 16 slots, bfloat16 engines:"]
    parts.append(_table(("engine", *(name for name, _ in _RATIOS.values())), _engine_rows(figures)))
    parts.append(_table(("part", "what was seen"), [*_other_rows(figures)]))
    return "\n\n".join(parts)


def _engine_rows(figures: Mapping[str, Any]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = []
    for name, title in _ENGINES.items():
        found = figures.get(name, {"error": "not measured"})
        texts = [form.format(found[key]) if key in found else "-" for key, (_, form) in _RATIOS.items()]
        rows.append((title, found["error"], *["-"] * (len(_RATIOS) - 1)) if "error" in found else (title, *texts))
    return rows


def _other_rows(figures: Mapping[str, Any]) -> list[Sequence[str]]:
    sentences = {
        "agreement": "{images} embedded images, float32, beside the CPU's: latents differ by at most "
        "{largest_difference:.1e}",
        "observation": "observing, share of the embedded network's time: clip {clip[observe_over_network]:.1%}, "
        "latent {latent[observe_over_network]:.1%}; loop over computing {clip[loop_over_compute]:.2f}, "
        "{latent[loop_over_compute]:.2f}",
        "denoiser": "embedded denoiser, {steps} steps in {seconds:.0f} s: {metrics}",
    }
    rows: list[Sequence[str]] = []
    for name, sentence in sentences.items():
        found = figures.get(name, {"error": "not measured"})
        rows.append((name, found["error"] if "error" in found else sentence.format(**found)))
    rows.append(("determinism", _determinism_text(figures.get("determinism", {"error": "not measured"}))))
    return [*rows, ("scorers", _scorer_text(figures.get("scorers", {"error": "not measured"})))]


def _determinism_text(found: Mapping[str, Any]) -> str:
    if "error" in found:
        return found["error"]
    apart = ", ".join(
        f"{dtype} {seen['again']:.1e} / {seen['other_slot_and_company']:.1e} (latents of {seen['scale']:.2f})"
        for dtype, seen in found["by_dtype"].items()
    )
    return f"the same image again / in another slot beside others, latents differ by at most: {apart}"


def _scorer_text(found: Mapping[str, Any]) -> str:
    if "error" in found:
        return found["error"]
    rates = ", ".join(f"{rate:.0f} ({batch})" for batch, rate in found["images_per_s"].items())
    return f"all full-size scorers, images/s (size of a pass): {rates}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
