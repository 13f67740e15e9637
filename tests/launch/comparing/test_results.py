"""What the results page says of its making."""

from __future__ import annotations

from launch.comparing.orders import ResultsOrder
from launch.comparing.results import result_command


def test_the_command_says_what_differs_from_its_defaults() -> None:
    assert result_command(ResultsOrder(limit=30, repeats=2)) == (
        "addiffusion results --policy shipped --limit 30 --seeds 2"
    )
    order = ResultsOrder(limit=30, repeats=1, samplers=("ddim-20", "euler-9"), best_of=0, literature=False)
    assert result_command(order) == (
        "addiffusion results --policy shipped --limit 30 --seeds 1 --sampler ddim-20 --sampler euler-9 "
        "--best-of 0 --no-literature"
    )
    assert result_command(ResultsOrder(repeats=2), ["reward.c_nfe=0.02", "policy.hidden=[64, 8]"]).endswith(
        "--seeds 2 reward.c_nfe=0.02 'policy.hidden=[64, 8]'"
    )
