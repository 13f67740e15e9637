"""The ``scorers`` section: which models judge images, where their weights are, and how the service runs them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from addiffusion.config.section import Cpus, Gpus, Section, Source


class ClipSection(Section):
    """CLIP (`scorers.kind=pretrained`): its embedding is part of phi, and CLIP score and aesthetic start from it."""

    model: Source = "ViT-L-14-quickgelu"
    """open_clip architecture, or a folder with open_clip_config.json and weights. OpenAI's need the quickgelu name."""
    weights: Source | None = "openai"
    """open_clip tag, local weights file or hub repository; must be null where `model` is a folder."""


class AestheticSection(Section):
    """LAION's aesthetic predictor (`scorers.kind=pretrained`), a head on CLIP ViT-L/14 embeddings."""

    weights: Source = "trl-lib/ddpo-aesthetic-predictor"
    """File with the head's weights (sac+logos+ava1-l14-linearMSE.pth) or hub repository."""


class DinoSection(Section):
    """DINO features (`scorers.kind=pretrained`): how alike two images are."""

    model: Source = "vit_small_patch8_224.dino"
    """timm model; vit_small_patch16_224.dino and vit_small_patch14_dinov2.lvd142m cost a fifth."""
    weights: Source | None = None
    """Local weights file; null takes timm's own from the hub."""
    image_size: int | None = Field(default=None, ge=14, le=4096)
    """Pixels per side the model sees; null is its own size (DINOv2: 518, of which 224 is a fifth of the work)."""


class ImageRewardSection(Section):
    """ImageReward (`scorers.kind=pretrained`)."""

    backend: Literal["rehosted", "package"] = "rehosted"
    """`rehosted` runs here; `package` is the original package in an environment of its own (docs/rewards.md)."""
    weights: Source = "zai-org/ImageReward"
    """ImageReward.pt, or the hub repository that has it."""
    tokenizer: Source = "google-bert/bert-base-uncased"
    """vocab.txt of bert-base-uncased, a folder with it, or the hub repository."""
    python: Source | None = None
    """`package`: the interpreter of the environment that scripts/image_reward_env.sh made."""

    @model_validator(mode="after")
    def _package_has_python(self) -> Self:
        if (self.backend == "package") != (self.python is not None):
            raise ValueError("python must be given for backend=package and null for backend=rehosted")
        return self


class HpsSection(Section):
    """HPS v2.1 (`scorers.kind=pretrained`, in `scorers.metrics`)."""

    model: Source = "ViT-H-14"
    """open_clip architecture."""
    weights: Source = "xswu/HPSv2"
    """HPS_v2.1_compressed.pt, or the hub repository that has it; v2.0 scores are on another scale."""


class PickScoreSection(Section):
    """PickScore (`scorers.kind=pretrained`, in `scorers.metrics`)."""

    weights: Source = "yuvalkirstain/PickScore_v1"
    """Folder of the transformers CLIPModel, or the hub repository."""


class ScorersSection(Section):
    """Scorers and the reward service."""

    kind: Literal["embedded", "pretrained"] = "embedded"
    """`embedded`: the scorers that ship with the package; `pretrained`: the full-size ones named below."""
    metrics: tuple[Literal["hps", "pickscore"], ...] = ()
    """`pretrained`: scorers to load besides those of the reward; they judge, and are never part of a reward."""
    extra: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")], ...] = ()
    """Scorers of your own as `module:factory` (docs/rewards.md); they judge, and are never part of a reward."""
    clip: ClipSection = ClipSection()
    """CLIP."""
    aesthetic: AestheticSection = AestheticSection()
    """LAION's aesthetic predictor."""
    dino: DinoSection = DinoSection()
    """DINO features."""
    image_reward: ImageRewardSection = ImageRewardSection()
    """ImageReward."""
    hps: HpsSection = HpsSection()
    """HPS v2.1."""
    pickscore: PickScoreSection = PickScoreSection()
    """PickScore."""
    device: str = "auto"
    """torch device of the scorers."""
    batch_images: int = Field(default=8, ge=1, le=4096)
    """Fixed batch shape of every scorer pass: larger requests are cut, smaller ones padded."""
    cache_images: int = Field(default=1024, ge=0, le=100_000_000)
    """Scores kept by content: an image seen before with its prompt is not scored again; 0 keeps none."""
    on_score_error: Literal["mask", "stop"] = "mask"
    """An image without a score: `mask` drops its episode, counts it and reissues its ticket; `stop` ends the run."""
    max_wait_ms: float = Field(default=4.0, ge=0, le=1e6)
    """How long the service waits for other workers' images before it scores a part-filled batch."""
    queue_images: int = Field(default=4096, ge=1, le=100_000_000)
    """Images that may wait; beyond it callers are held back."""
    timeout_s: float = Field(default=120.0, gt=0, le=1e8)
    """Deadline of one scoring request."""
    pass_timeout_s: float = Field(default=60.0, gt=0, le=1e8)
    """Deadline of one pass over the scorers: one that hangs is given up and named in its callers' error."""
    service: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] | None = None
    """Null: a service of this run's own. A name: a service that runs share, started if missing and left running."""
    replicas: int = Field(default=1, ge=1, le=1000)
    """Processes that score; each request goes to the least loaded one."""
    cpus: Cpus = 0.5
    """CPUs Ray reserves for each replica of the reward service."""
    gpus: Gpus = 0.0
    """GPUs (or a fraction) Ray reserves for each replica of the reward service. 0: a whole one where the workers leave
    enough and `scorers.device` is `auto` or `cuda`; else it works on the first GPU, beside a worker."""

    @model_validator(mode="after")
    def _metrics_belong_to_pretrained(self) -> Self:
        if self.kind == "embedded" and self.metrics:
            raise ValueError("metrics must be empty for kind=embedded: its metrics are always loaded")
        return self
