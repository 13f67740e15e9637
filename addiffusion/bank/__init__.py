"""The trajectory bank: every (prompt, seed) rolled out once to full length, with all its possible ends.

A deterministic sampler that never refines walks one path per (prompt, seed). A bank holds that path: at each decision
what the policy would observe and what the scorers say, and for every tried stop the scores and the NFE of the image it
would have returned. So any stop/continue policy can be replayed, paid and improved without the diffusion model.

Reading one::

    from addiffusion.bank import open_bank

    bank = open_bank(Path("banks/train"), config)        # config=None skips the check that it fits
    bank.trajectories                                    # tuple[Trajectory, ...], in the order they were planned
    bank.find("a red circle", seed)                      # one of them, or None
    bank.plan.metrics, bank.plan.layout                  # ("scene_soft", "scene_strict"), slices of phi
    bank.plan.stride                                     # n: stop was tried at every n-th decision

    one = bank.trajectories[0]
    one.prompt.tier, one.seed, one.nfe                   # nfe (d,): passes so far at each decision
    one.phi, one.scores, one.metrics                     # (d, p), (d + 1, k), (d + 1, m): predictions, then the image
    one.end_nfe                                          # (s,) NFE of each possible end; the last is the full length
    one.end_scores, one.end_metrics, one.end_dino        # (s, k), (s, m), (s, f) of the image each end returns
    one.ends("clip"), one.ends("scene_soft")             # (s,) one column by its name
    one.reference                                        # what `paired` rewards are relative to

Exact oracle stopping (``addiffusion.bank.oracle``)::

    oracle_end(one.ends("scene_soft") - price * one.end_nfe)         # index into end_*: first of the best
    oracle_end(reward_of_ends(one, config.reward, c_nfe=0.04))       # the same by the reward itself
    fixed_end(one, nfe=12.0)                                         # the end nearest to a fixed budget

``addiffusion.bank.replay.BankRollouts`` is a ``Rollouts`` that plays a policy through a bank, bitwise as live.
"""

from __future__ import annotations

from addiffusion.bank.archive import Bank, open_bank
from addiffusion.bank.oracle import fixed_end, oracle_end, reward_of_ends
from addiffusion.bank.trajectory import Trajectory

__all__ = ["Bank", "Trajectory", "fixed_end", "open_bank", "oracle_end", "reward_of_ends"]
