"""The suite's contract: order, independence of rows, shared forwards, and errors that stay with their item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from addiffusion.config import ScorersSection
from addiffusion.embedded.world.data import SceneBatch
from addiffusion.embedded.world.pixels import to_network
from addiffusion.errors import ContractError
from addiffusion.records import METRIC_NAMES, SCORE_NAMES, ScoreRequest
from addiffusion.scorers.base import Scorer, ScorerSpec
from addiffusion.scorers.clip import ClipScorer, ClipTower
from addiffusion.scorers.dino import DinoFeatures
from addiffusion.scorers.embedded import embedded_aesthetic, embedded_dino, embedded_tower, network_view
from addiffusion.scorers.factory import load_suite
from addiffusion.scorers.images import ImageBatch
from addiffusion.scorers.suite import ScorerSuite
from tests.addiffusion.scorers.forwards import image_forwards

ALL_NAMES = (*SCORE_NAMES, *METRIC_NAMES)
CPU = torch.device("cpu")


def request_of(scenes: SceneBatch, rows: slice, names: tuple[str, ...] = SCORE_NAMES) -> ScoreRequest:
    return ScoreRequest(images=scenes.images[rows], prompts=scenes.captions[rows], names=names)


def test_reply_has_the_promised_shapes(suite: ScorerSuite, scenes: SceneBatch) -> None:
    reply = suite.score(request_of(scenes, slice(0, 6), ALL_NAMES))
    assert reply.names == ALL_NAMES
    assert reply.values.shape == (6, 5)
    assert reply.clip_embedding.shape == (6, suite.clip_width)
    assert reply.dino_embedding.shape == (6, suite.dino_width)
    assert reply.values.dtype == reply.clip_embedding.dtype == reply.dino_embedding.dtype == np.float32
    assert reply.errors == (None,) * 6
    assert np.isfinite(reply.values).all()


def test_embeddings_have_unit_length(suite: ScorerSuite, scenes: SceneBatch) -> None:
    reply = suite.score(request_of(scenes, slice(0, 5)))
    texts = suite.embed_text(scenes.captions[:5])
    for rows in (reply.clip_embedding, reply.dino_embedding, texts):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)


def test_clip_score_is_the_cosine_of_the_returned_embeddings(suite: ScorerSuite, scenes: SceneBatch) -> None:
    reply = suite.score(request_of(scenes, slice(0, 5), ("clip",)))
    texts = suite.embed_text(scenes.captions[:5])
    np.testing.assert_allclose(reply.values[:, 0], (reply.clip_embedding * texts).sum(axis=1), atol=1e-6)


def test_columns_follow_the_requested_names(suite: ScorerSuite, scenes: SceneBatch) -> None:
    forward = suite.score(request_of(scenes, slice(0, 3), ALL_NAMES))
    backward = suite.score(request_of(scenes, slice(0, 3), ALL_NAMES[::-1]))
    np.testing.assert_array_equal(forward.values, backward.values[:, ::-1])


@pytest.mark.parametrize("row", [0, 3, 4, 8])
def test_a_row_is_bitwise_independent_of_its_company(suite: ScorerSuite, scenes: SceneBatch, row: int) -> None:
    together = suite.score(request_of(scenes, slice(0, 9), ALL_NAMES))
    alone = suite.score(request_of(scenes, slice(row, row + 1), ALL_NAMES))
    np.testing.assert_array_equal(alone.values[0], together.values[row])
    np.testing.assert_array_equal(alone.clip_embedding[0], together.clip_embedding[row])
    np.testing.assert_array_equal(alone.dino_embedding[0], together.dino_embedding[row])


def test_order_of_a_request_is_the_order_of_its_reply(suite: ScorerSuite, scenes: SceneBatch) -> None:
    reply = suite.score(request_of(scenes, slice(0, 6)))
    turned = suite.score(ScoreRequest(images=scenes.images[5::-1], prompts=scenes.captions[5::-1]))
    np.testing.assert_array_equal(turned.values, reply.values[::-1])


def test_one_clip_forward_serves_embedding_score_and_aesthetic(
    suite: ScorerSuite, scenes: SceneBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = image_forwards(suite.clip, monkeypatch)
    suite.score(request_of(scenes, slice(0, 8)))
    assert seen == [4, 4], "in batches of 4, whatever is asked for"


def test_read_only_images_are_accepted(suite: ScorerSuite, scenes: SceneBatch) -> None:
    images = scenes.images[:2].copy()
    images.setflags(write=False)
    reply = suite.score(ScoreRequest(images=images, prompts=scenes.captions[:2]))
    assert reply.errors == (None, None)


def test_an_empty_request_has_an_empty_reply(suite: ScorerSuite, scenes: SceneBatch) -> None:
    reply = suite.score(request_of(scenes, slice(0, 0)))
    assert reply.values.shape == (0, 3)
    assert reply.clip_embedding.shape == (0, suite.clip_width)
    assert reply.errors == ()


def test_a_prompt_outside_the_grammar_fails_its_own_item_only(suite: ScorerSuite, scenes: SceneBatch) -> None:
    request = replace(
        request_of(scenes, slice(0, 3), ALL_NAMES), prompts=(scenes.captions[0], "a unicorn", scenes.captions[2])
    )
    reply = suite.score(request)
    assert reply.errors[0] is None
    assert reply.errors[2] is None
    assert "unicorn" in (reply.errors[1] or "")
    assert np.isnan(reply.values[1]).all()
    assert np.isfinite(reply.values[[0, 2]]).all()


def test_a_prompt_outside_the_grammar_is_scored_when_no_metric_is_asked_for(
    suite: ScorerSuite, scenes: SceneBatch
) -> None:
    reply = suite.score(ScoreRequest(images=scenes.images[:1], prompts=("a unicorn",)))
    assert reply.errors == (None,)
    assert np.isfinite(reply.values).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": np.zeros((2, 64, 64, 3), np.float32)}, "float32"),
        ({"images": np.zeros((2, 32, 64, 3), np.uint8)}, r"\(2, 32, 64, 3\)"),
        ({"images": np.zeros((64, 64, 3), np.uint8)}, r"\(64, 64, 3\)"),
        ({"prompts": ("a red circle",)}, "1 prompts for 2 images"),
        ({"names": ("clip", "beauty")}, "score beauty"),
        ({"embeddings": ("text",)}, "embedding text"),
    ],
)
def test_a_malformed_request_is_refused_as_a_whole(suite: ScorerSuite, change: dict[str, object], words: str) -> None:
    request = ScoreRequest(images=np.zeros((2, 64, 64, 3), np.uint8), prompts=("a red circle", "a blue star"))
    with pytest.raises(ContractError, match=words):
        suite.score(replace(request, **change))  # pyright: ignore[reportArgumentType]


WHITE = 255
"""Images of nothing but this break the toy scorers below."""


def white(images: ImageBatch) -> Tensor:
    return (images.pixels == WHITE).flatten(1).all(dim=1)


class Brightness:
    """A scorer that is NaN for white images, or that refuses any batch with one."""

    spec = ScorerSpec(name="brightness", unit="share", low=0.0, high=1.0, needs_prompt=False)

    def __init__(self, *, raises: bool = False, shape: tuple[int, ...] = (-1,)) -> None:
        self.raises, self.shape, self.calls = raises, shape, 0

    def score(self, images: ImageBatch, prompts: Sequence[str]) -> Float[Tensor, " n"]:
        self.calls += 1
        if self.raises and bool(white(images).any()):
            raise RuntimeError("white is no picture")
        values = images.pixels.float().mean(dim=(1, 2, 3)) / WHITE
        values[white(images)] = torch.nan
        return values.reshape(self.shape)


def suite_with(*extra: Scorer, clip: ClipTower | None = None, dino: DinoFeatures | None = None) -> ScorerSuite:
    tower = clip or embedded_tower(CPU)
    return ScorerSuite(
        clip=tower,
        dino=dino or embedded_dino(CPU),
        scorers=(ClipScorer(tower), embedded_aesthetic(tower, CPU), *extra),
        device=CPU,
        batch_images=4,
    )


def with_a_white_one(scenes: SceneBatch, *names: str) -> ScoreRequest:
    images = scenes.images[:3].copy()
    images[1] = WHITE
    return ScoreRequest(images=images, prompts=scenes.captions[:3], names=names)


@pytest.mark.parametrize("raises", [False, True])
def test_a_scorer_that_fails_on_one_image_fails_that_image_only(scenes: SceneBatch, raises: bool) -> None:
    suite = suite_with(Brightness(raises=raises))
    reply = suite.score(with_a_white_one(scenes, "clip", "brightness"))
    assert reply.errors[0] is None
    assert reply.errors[2] is None
    assert ("white is no picture" if raises else "NaN") in (reply.errors[1] or "")
    assert "`brightness`" in (reply.errors[1] or "")
    assert np.isnan(reply.values[1]).all(), "no score of a broken item may be used, also not a finite one"
    assert np.isfinite(reply.values[[0, 2]]).all()
    assert suite.usage().error_count == {"brightness": 1}
    healthy = suite.score(request_of(scenes, slice(0, 1), ("clip", "brightness")))
    np.testing.assert_array_equal(healthy.values[0], reply.values[0])


class Greedy(Brightness):
    """Needs more memory than there is for more than ``capacity`` images at once, or loses its device."""

    def __init__(self, capacity: int, error: Exception | None = None) -> None:
        super().__init__()
        self.capacity, self.rows = capacity, list[int]()
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the advice.")

    def score(self, images: ImageBatch, prompts: Sequence[str]) -> Float[Tensor, " n"]:
        self.rows.append(len(images.pixels))
        if len(images.pixels) > self.capacity:
            raise self.error
        return super().score(images, prompts)


@pytest.mark.parametrize(
    "error",
    [
        None,
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError("Unable to allocate 2.00 GiB"),
    ],
)
def test_a_batch_that_memory_does_not_hold_is_halved_once_per_size(
    scenes: SceneBatch, error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    """And what fits is remembered: nothing is tried image by image in the batch that did not fit."""
    greedy = Greedy(1, error)
    suite = suite_with(greedy)
    request = request_of(scenes, slice(0, 6), ("clip", "brightness"))
    reply = suite.score(request)
    assert reply.errors == (None,) * 6
    assert greedy.rows == [4, 2, *[1] * 6]
    assert suite.usage().halved_count == 2
    assert [record.message.split(": ")[-1] for record in caplog.records] == [
        "from now on they take 2 at a time; set scorers.batch_images=2 to start so.",
        "from now on they take 1 at a time; set scorers.batch_images=1 to start so.",
    ]
    suite.score(request)
    assert greedy.rows[8:] == [1] * 6
    assert len(caplog.records) == 2
    np.testing.assert_allclose(
        reply.values[:, 1], suite_with(Brightness()).score(request).values[:, 1], rtol=1e-5, err_msg="right rows"
    )


def test_an_image_that_memory_does_not_hold_alone_is_its_own_error(scenes: SceneBatch) -> None:
    """There is nothing left to halve."""
    suite = suite_with(Greedy(0))
    reply = suite.score(request_of(scenes, slice(0, 2), ("clip", "brightness")))
    assert all("`brightness` failed on this image" in (error or "") for error in reply.errors)
    assert suite.usage().halved_count == 2


def test_memory_that_an_unbatched_scorer_lacks_halves_nothing(scenes: SceneBatch) -> None:
    """It sees one image at a time as it is."""
    greedy = Greedy(0)
    greedy.spec = replace(Brightness.spec, batched=False)
    suite = suite_with(greedy)
    reply = suite.score(request_of(scenes, slice(0, 2), ("clip", "brightness")))
    assert all(reply.errors)
    assert suite.usage().halved_count == 0


def test_a_lost_device_is_no_error_of_an_image(scenes: SceneBatch) -> None:
    """Every later image would fail just the same: whoever runs the process must end it."""
    suite = suite_with(Greedy(0, RuntimeError("CUDA error: device-side assert triggered")))
    with pytest.raises(RuntimeError, match="device-side assert"):
        suite.score(request_of(scenes, slice(0, 2), ("brightness",)))


def test_a_result_of_another_shape_is_an_error_of_its_images(scenes: SceneBatch) -> None:
    reply = suite_with(Brightness(shape=(2, -1))).score(request_of(scenes, slice(0, 2), ("brightness",)))
    assert all("shape (2, 2) where (4,) was due" in (error or "") for error in reply.errors)


def test_an_embedding_that_is_nan_is_an_error_of_that_item(scenes: SceneBatch) -> None:
    class Poisoned(DinoFeatures):
        def embed_images(self, images: ImageBatch) -> Tensor:
            features = super().embed_images(images).clone()
            features[white(images)] = torch.nan
            return features

    poisoned = Poisoned(torch.nn.Flatten(), prepare=network_view, device=CPU)
    poisoned._model.num_features = 3 * 64 * 64  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    reply = suite_with(dino=poisoned).score(with_a_white_one(scenes, "clip"))
    assert [error is None for error in reply.errors] == [True, False, True]
    assert "`dino_embedding`" in (reply.errors[1] or "")


def test_nothing_is_computed_that_nobody_asked_for(scenes: SceneBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    brightness = Brightness()
    suite = suite_with(brightness)
    seen = image_forwards(suite.clip, monkeypatch)
    request = replace(request_of(scenes, slice(0, 4), ("brightness",)), embeddings=())
    reply = suite.score(request)
    assert (len(seen), brightness.calls) == (0, 1)
    assert reply.clip_embedding.shape == reply.dino_embedding.shape == (4, 0)
    assert set(suite.usage().seconds) == {"brightness"}
    suite.score(replace(request, names=(), embeddings=("clip",)))
    assert (len(seen), brightness.calls) == (1, 1)


def test_every_score_says_what_it_means(suite: ScorerSuite) -> None:
    assert suite.names == ALL_NAMES
    for name, scorer in suite.scorers.items():
        assert scorer.spec.name == name
        assert scorer.spec.low < scorer.spec.high


def test_text_embeddings_do_not_depend_on_their_company(suite: ScorerSuite) -> None:
    fresh = load_suite(ScorersSection(device="cpu", batch_images=4))
    prompts = ["a red circle", "two blue stars", "a red circle"]
    together = suite.embed_text(prompts)
    np.testing.assert_array_equal(together[0], together[2])
    np.testing.assert_array_equal(fresh.embed_text(prompts[1:2])[0], together[1])
    assert suite.embed_text([]).shape == (0, suite.clip_width)


def test_network_space_is_centred(scenes: SceneBatch) -> None:
    x = to_network(scenes.images[:2])
    assert x.shape == (2, 3, 64, 64)
    assert float(x.min()) >= -1.0
    assert float(x.max()) <= 1.0
