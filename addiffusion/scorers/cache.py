"""A cache of scores: equal images of a request, and images seen before, are scored once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

import numpy as np
from jaxtyping import Float32

from addiffusion.cancellation import committing
from addiffusion.records import ScoreReply, ScoreRequest
from addiffusion.scorers.base import Metered, ScorerUsage, Scoring, WrappedScoring
from addiffusion.scorers.requests import check_request, join_replies, reply_rows, request_rows

Key = bytes


class CachedScoring(WrappedScoring):
    """Any ``Scoring`` behind a cache by content: image, prompt and what was asked of them.

    It is invisible but for the time it saves, because scoring is a pure function of a row. References, which every run
    on the same prompts draws again, and final images that were scored as the last prediction are the usual hits.
    Errors are not remembered: what failed once is tried again.
    """

    def __init__(self, scoring: Scoring, *, capacity: int) -> None:
        """A cache of the last ``capacity`` rows in front of ``scoring``; 0 only joins equal images of one request."""
        super().__init__(scoring)
        self._capacity = capacity
        self._known: OrderedDict[Key, ScoreReply] = OrderedDict()
        self._hit_count = 0

    def usage(self) -> ScorerUsage:
        """The account of the scorers behind, and the rows that did not need them."""
        usage = self._scoring.usage() if isinstance(self._scoring, Metered) else ScorerUsage()
        return replace(usage, cache_hit_count=self._hit_count)

    def embed_text(self, prompts: Sequence[str]) -> Float32[np.ndarray, "n e"]:
        """See ``Scoring.embed_text``."""
        return self._scoring.embed_text(prompts)

    def score(self, request: ScoreRequest) -> ScoreReply:
        """See ``Scoring.score``."""
        check_request(request)
        keys = _keys(request)
        fresh: dict[Key, int] = {}
        for row, key in enumerate(keys):
            if key not in self._known:
                fresh.setdefault(key, row)
        if len(fresh) == len(keys):
            return self._scored(request, keys)
        with committing():
            self._hit_count += len(keys) - len(fresh)
            answers = {key: self._recalled(key) for key in keys if key not in fresh}
        if fresh:
            new = self._scored(request_rows(request, list(fresh.values())), list(fresh))
            answers.update({key: reply_rows(new, [row]) for row, key in enumerate(fresh)})
        return join_replies([answers[key] for key in keys])

    def _scored(self, request: ScoreRequest, keys: Sequence[Key]) -> ScoreReply:
        reply = self._scoring.score(request)
        with committing():
            for row, key in enumerate(keys if self._capacity else ()):
                if reply.errors[row] is None:
                    self._known[key] = reply_rows(reply, [row])
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)
        return reply

    def _recalled(self, key: Key) -> ScoreReply:
        self._known.move_to_end(key)
        return self._known[key]


def _keys(request: ScoreRequest) -> list[Key]:
    """(n,) digest of each row's content, with everything its scores depend on."""
    asked = repr((request.images.shape[1:], request.names, request.embeddings)).encode()
    return [
        blake2b(np.ascontiguousarray(image).data, digest_size=16, key=blake2b(asked, digest_size=16).digest()).digest()
        + prompt.encode()
        for image, prompt in zip(request.images, request.prompts, strict=True)
    ]
