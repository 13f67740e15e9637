"""diffusers' own pipeline tests on this pipeline, where a copy of them is at hand; docs/pipeline.md says how.

``DIFFUSERS_TESTS`` names a folder in which the folder ``tests`` of diffusers' repository lies as ``diffusers_tests``.
"""

from __future__ import annotations

import os
import sys
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from addiffusion.actions import Action
from addiffusion.pipeline.adaptive import adaptive_class
from tests.addiffusion.backbones.family_runs import KINDS
from tests.addiffusion.pipeline.tiny_policies import load_base, make_policy
from tests.addiffusion.tiny_models import save_flux_like, save_sd3_like, save_sd15_like, save_sdxl_like

COPY = os.environ.get("DIFFUSERS_TESTS")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(COPY is None, reason="no copy of diffusers' tests at hand")]
SAVE = {"sd15": save_sd15_like, "sdxl": save_sdxl_like, "sd3": save_sd3_like, "flux": save_flux_like}
FOLDERS: dict[str, Path] = {}
WHY = {
    "test_to_dtype": "the policy stays in float32 on purpose",
    "test_torch_dtype_dict": "the policy stays in float32 on purpose",
    "test_save_load_optional_components": "it takes the tokenizers away, as from SDXL's own pipeline",
    "test_encode_prompt_works_in_isolation": "it looks the class up in diffusers.pipelines",
}
"""Tests of theirs that can't pass, and why; ``can_not_pass`` says where, and docs/pipeline.md has the list."""

if COPY is not None:
    sys.path.insert(0, COPY)
    theirs: Any = import_module("diffusers_tests.pipelines.testing_utils")
    params: Any = import_module("diffusers_tests.pipelines.pipeline_params")
    Mixin, Contract = theirs.PipelineTesterMixin, theirs.BasePipelineTesterConfig
    Layerwise = theirs.LayerwiseCastingTesterMixin
else:
    Mixin = Contract = Layerwise = object
    params = None


def their_tests(family: str, policy: Action | None, *, led: bool) -> type:
    """Their tests for one family, with its own loop or led by a policy."""

    def components(_self: Any) -> dict[str, Any]:
        torch.manual_seed(0)
        base = load_base(family, FOLDERS[family])
        found = {**base.components, **base.parameters}
        found["policy"] = make_policy(family, FOLDERS[family], policy) if led else None
        return {name: part for name, part in found.items() if not isinstance(part, bool)}

    def inputs(self: Any) -> dict[str, Any]:
        size = {"height": 16, "width": 16}
        return {
            "prompt": "a red cat",
            "generator": self.get_generator(0),
            "num_inference_steps": 5 if led else 2,
            "guidance_scale": 1.0 if family == "flux" else 6.0,
            "output_type": "pt",
            **size,
        }

    def encode_prompt(self: Any) -> None:
        guided = {"device": "cpu", "do_classifier_free_guidance": True} if family in {"sd15", "sdxl"} else {}
        Mixin.test_encode_prompt_works_in_isolation(self, guided)

    members = {
        "test_encode_prompt_works_in_isolation": encode_prompt,
        "pipeline_class": adaptive_class(KINDS[family]),
        "required_input_params_in_call_signature": frozenset({"prompt", "height", "width", "guidance_scale"}),
        "batch_input_params": frozenset({"prompt"}),
        "callback_cfg_params": frozenset(),
        "output_shape": (3, 16, 16),
        "get_dummy_components": components,
        "get_dummy_inputs": inputs,
    }
    members |= {name: expected_to_fail(name, members.get(name)) for name in can_not_pass(family, led=led)}
    return type(f"Test_{family}_{'led' if led else 'own'}", (Contract, Layerwise, Mixin), members)


def can_not_pass(family: str, *, led: bool) -> list[str]:
    """Names of WHY that fail for a family, led by a policy or not."""
    always = ["test_encode_prompt_works_in_isolation"]
    precision = ["test_to_dtype", "test_torch_dtype_dict"] if led else []
    return [*always, *precision, *(["test_save_load_optional_components"] if family == "sdxl" else [])]


def expected_to_fail(name: str, own: Any) -> Any:
    """The test, which fails for its reason; one that passes all the same is told."""
    theirs_own: Any = own or getattr(Mixin, name)

    @pytest.mark.xfail(reason=WHY[name], strict=True)
    @wraps(theirs_own)
    def test(*given: Any, **named: Any) -> None:
        theirs_own(*given, **named)

    return test


@pytest.fixture(scope="module", autouse=True)
def folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    for family, save in SAVE.items():
        FOLDERS[family] = save(tmp_path_factory.mktemp(family))


if COPY is not None:
    for _family in KINDS:
        for _led in (False, True):
            _made = their_tests(_family, Action.CONTINUE, led=_led)
            globals()[_made.__name__] = _made
