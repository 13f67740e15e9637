"""The run configuration: frozen models. The docstring under each field is its documentation everywhere."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from addiffusion.config.bank import BankSection, WarmStartSection
from addiffusion.config.policy import PolicySection
from addiffusion.config.reward import RewardSection
from addiffusion.config.sampling import BackboneSection, ObservationSection, RefineSection, SamplerSection
from addiffusion.config.scorers import ScorersSection
from addiffusion.config.section import Cpus, Gpus, LocalPath, Section, Source
from addiffusion.config.training import AlarmsSection, CurriculumSection, TrackingSection


class RunSection(Section):
    """The run itself."""

    dir: LocalPath | None = None
    """Folder of the run; null makes `runs/<UTC time>`. A folder that exists is refused."""
    if_exists: Literal["refuse", "resume"] = "refuse"
    """A run folder that exists already: `resume` goes on with it, so that one command both starts and resumes."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    """Root of every random stream of the run."""
    record_episodes: bool = False
    """Write every trained episode to `episodes/` in the run folder, as Parquet."""
    film_strips: int = Field(default=6, ge=0, le=1000)
    """Held-out episodes drawn as film strips at the end."""


class ClusterSection(Section):
    """Where the roles run."""

    mode: Literal["ray", "serial"] = "ray"
    """`ray` runs the roles as Ray actors; `serial` runs the same components in this process without Ray."""
    address: str = "local"
    """`local` starts Ray on this machine; `auto` or `host:port` joins a running cluster."""
    bind: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """`address=local`: the address Ray listens on; any other than loopback lets machines join, and needs a token."""
    start_timeout_s: float = Field(default=180.0, gt=0, le=1e8)
    """How long Ray and its actors may take to start."""


class RolloutSection(Section):
    """Rollout workers."""

    workers: int = Field(default=2, ge=1, le=10_000)
    """Rollout workers; each owns one diffusion pipeline. On a cluster whose nodes offer the resource `rollout`, those
    that find no room wait for a node, and every further unit of it gets a worker too, also when its node joins."""
    max_workers: int | None = Field(default=None, ge=1, le=10_000)
    """Most workers on such a cluster; null: as many as it offers."""
    slots: int = Field(default=8, ge=1, le=4096)
    """Images a worker has under way at once (S)."""
    rows: int | None = Field(default=None, ge=1, le=8192)
    """Rows of a network pass (R), whatever is under way: a guided image takes two, any other one. null: what half of
    the slots take, so that half are denoised while the images of the others are scored."""
    row_buckets: bool = False
    """A pass has the smallest power of two of rows that holds what is under way, at most `rows`: images differ by
    rounding with their company then, so it is for evaluation; training refuses it."""
    cpus_per_worker: Cpus = Field(default=0.5, gt=0)
    """CPUs Ray reserves for a worker."""
    gpus_per_worker: Gpus = 0.0
    """GPUs Ray reserves for a worker; a fraction lets workers share one. 0: a whole one where there are GPUs and
    `backbone.device` is `auto` or `cuda`."""
    timeout_s: float = Field(default=600.0, gt=0, le=1e8)
    """Seconds an episode is given before its worker counts as hanging, is restarted, and its tickets go to others;
    where this run's own episodes take longer, four times what the slowest of the last ones took."""
    carry_ticks: int = Field(default=16, ge=1, le=1_000_000)
    """Ticks a worker works between two hand-overs of finished episodes and new tickets."""
    max_reissues: int = Field(default=3, ge=0, le=1000)
    """How often a ticket that failed, or was alone on a worker that was lost, is handed out again before it is refused
    and a training stops. A worker that is lost with several tickets costs none of them anything."""
    max_restarts: int = Field(default=8, ge=1, le=1000)
    """How many restarts of workers in a row may bring no finished episode before the run stops; each but the first
    waits twice as long as the one before, at most 30 s."""

    @model_validator(mode="after")
    def _limit_leaves_room_for_the_first(self) -> Self:
        if self.max_workers is not None and self.max_workers < self.workers:
            raise ValueError(f"max_workers={self.max_workers} must not be below workers={self.workers}")
        return self


class PpoSection(Section):
    """The learner."""

    iterations: int = Field(default=24, ge=0, le=999_999)
    """Policy updates of the run; 0 keeps the policy it starts with (see `warm_start`)."""
    batch_size: int = Field(default=64, ge=1, le=100_000)
    """Complete episodes per update, by ticket."""
    collection: Literal["synchronous", "carry_over"] = "synchronous"
    """`synchronous`: every episode is acted by the present weights, and the run is a function of its seed;
    `carry_over`: slots that an iteration leaves free begin the next ones, whose episodes go on with the new weights."""
    max_lag: int = Field(default=1, ge=1, le=1000)
    """`carry_over`: iterations a ticket may be handed out ahead, so updates its oldest decision may be behind."""
    algorithm: Literal["ppo", "appo", "bc", "marwil"] = "ppo"
    """`appo` weighs decisions by weights of the past with V-trace (arXiv:1802.01561): for `carry_over` with a large
    `max_lag`. The same as `ppo` where no decision is old. `bc` imitates an oracle that stops with hindsight, `marwil`
    learns from stops anywhere, weighted by how they turned out (arXiv:1806.00589); both from the trajectory bank
    `warm_start.bank` alone."""
    weighting: Literal["decision", "episode"] = "decision"
    """Every decision counts the same in the loss, or every episode, however long."""
    price_scale: float = Field(default=0.0, ge=0, le=1e6)
    """Passes. An episode's rewards are divided by 1 + its price times this, which leaves the best policy at each price
    as it is: where prices range over orders of magnitude, the dear episodes would otherwise drown the cheap ones."""
    learners: int = Field(default=0, ge=0, le=1000)
    """Learner processes that share each gradient step; 0 trains in the driver's process."""
    gpus_per_learner: Gpus = 0.0
    """GPUs of a learner (of the driver, when `learners` is 0); 0 trains on the CPU."""
    lr: float = Field(default=3.0e-4, gt=0, le=100)
    """Adam learning rate."""
    gamma_d: float = Field(default=1.0, gt=0, le=1)
    """Discount per decision; below 1 a loss of quality shrinks with every step it is put off."""
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    """GAE lambda (arXiv:1506.02438)."""
    clip: float = Field(default=0.2, gt=0, le=1e6)
    """PPO clip range (arXiv:1707.06347 Eq. 7)."""
    value_coeff: float = Field(default=0.5, ge=0, le=1e6)
    """Weight of the value loss."""
    entropy_start: float = Field(default=0.05, ge=0, le=1e6)
    """Entropy coefficient of the first iteration."""
    entropy_end: float = Field(default=0.01, ge=0, le=1e6)
    """Entropy coefficient of the last iteration; linear in between."""
    max_grad_norm: float = Field(default=0.5, gt=0, le=1e12)
    """Global gradient norm limit."""
    epochs: int = Field(default=4, ge=1, le=10_000)
    """Passes over a batch per update."""
    minibatch_size: int = Field(default=128, ge=1, le=1_000_000_000)
    """Decisions per gradient step."""


class PromptsSection(Section):
    """Training prompts."""

    source: Source = "embedded"
    """`embedded`, or the path of a file of prompts (a folder for `t2i_compbench`)."""
    format: Literal["auto", "text", "coco", "imagereward", "drawbench", "parti", "geneval", "t2i_compbench"] = "auto"
    """What the file is; `auto` goes by its name: .txt text, .json coco, .jsonl geneval, .csv drawbench, .tsv parti, a
    folder t2i_compbench."""
    tiers: Annotated[tuple[Literal[1, 2, 3], ...], Field(min_length=1)] = (1, 2, 3)
    """Tiers that are used: the embedded world's own, those a set's labels stand for, or, where it has none, a count of
    objects, attributes and relations."""
    test_split: Literal["test", "validation", "compositional"] = "test"
    """Prompts of the final comparison; `compositional` (embedded only): colour-shape pairs that nothing trained on."""
    train_count: int = Field(default=192, ge=1, le=1_000_000)
    """Distinct (prompt, seed) pairs trained on; each has a full-length reference."""


class EvaluationSection(Section):
    """The comparison at the end of a run."""

    prompt_count: int = Field(default=120, ge=1, le=100_000)
    """Held-out prompts of the table at the end."""
    static_steps: int = Field(default=20, ge=2, le=10_000)
    """Steps of the static sampler in the table."""


class CheckpointSection(Section):
    """Checkpoints."""

    every: int = Field(default=10, ge=1, le=1_000_000)
    """Iterations between checkpoints; the last iteration always has one."""
    keep: int = Field(default=3, ge=1, le=1_000_000)
    """Checkpoints kept besides the last and the best."""
    best_metric: Annotated[str, Field(min_length=1)] = "return"
    """Metric of metrics.jsonl whose mean over the last five iterations makes a checkpoint the best: the greatest
    `return`, quality or score, the least `nfe` or loss; `checkpoints/best` points to it."""


class Config(Section):
    """Everything a run depends on."""

    run: RunSection = RunSection()
    """The run itself."""
    resume: LocalPath | None = None
    """A run folder to go on with; every other key then comes from it."""
    cluster: ClusterSection = ClusterSection()
    """Where the roles run."""
    rollout: RolloutSection = RolloutSection()
    """Rollout workers."""
    backbone: BackboneSection = BackboneSection()
    """The frozen diffusion model."""
    sampler: SamplerSection = SamplerSection()
    """Solver and schedule."""
    refine: RefineSection = RefineSection()
    """The refine action."""
    observation: ObservationSection = ObservationSection()
    """What the policy sees."""
    reward: RewardSection = RewardSection()
    """What the policy is paid for."""
    scorers: ScorersSection = ScorersSection()
    """Scorers and the reward service."""
    policy: PolicySection = PolicySection()
    """Policy and value networks."""
    ppo: PpoSection = PpoSection()
    """The learner."""
    prompts: PromptsSection = PromptsSection()
    """Training prompts."""
    curriculum: CurriculumSection = CurriculumSection()
    """Which tiers of prompts are trained when."""
    bank: BankSection = BankSection()
    """The trajectory bank."""
    warm_start: WarmStartSection = WarmStartSection()
    """The policy before its first live episode, from a trajectory bank."""
    evaluation: EvaluationSection = EvaluationSection()
    """The comparison at the end of a run."""
    checkpoint: CheckpointSection = CheckpointSection()
    """Checkpoints."""
    alarms: AlarmsSection = AlarmsSection()
    """When a run warns that its policy collapses."""
    tracking: TrackingSection = TrackingSection()
    """What is shown of a run while it works."""

    @property
    def rows_per_image(self) -> int:
        """Rows of a network pass that an image takes: 2 with guidance."""
        return 2 if self.backbone.guidance_scale > 1 else 1

    @property
    def network_rows(self) -> int:
        """Rows of a network pass (R)."""
        return self.rollout.rows or self.rows_per_image * -(-self.rollout.slots // 2)

    @property
    def images_per_pass(self) -> int:
        """Images that a network pass leads on; also the rows that the policy is asked for at once."""
        return self.network_rows // self.rows_per_image

    def with_half_the_slots(self) -> Config:
        """The same with half of the slots, and half of the rows where their number is given."""
        rows = self.rollout.rows and max(self.rows_per_image, self.rollout.rows // 2)
        rollout = self.rollout.model_copy(update={"slots": self.rollout.slots // 2, "rows": rows})
        return self.model_copy(update={"rollout": rollout})

    @model_validator(mode="after")
    def _rows_are_for_images(self) -> Self:
        least, most = self.rows_per_image, self.rows_per_image * self.rollout.slots
        if self.rollout.rows is not None and not least <= self.rollout.rows <= most:
            raise ValueError(
                f"rollout.rows={self.rollout.rows} must be from {least}, which one image takes, to {most}, which "
                f"rollout.slots={self.rollout.slots} images take"
            )
        return self

    @model_validator(mode="after")
    def _actions_can_be_taken(self) -> Self:
        if "leap" in self.policy.actions and self.sampler.leap_steps is None:
            raise ValueError(
                "policy.actions has leap, which needs sampler.leap_steps: set it to 2 or 4, or leave leap out"
            )
        if "unguided" in self.policy.actions and self.rows_per_image == 1:
            raise ValueError(
                f"policy.actions has unguided, but nothing is guided at backbone.guidance_scale="
                f"{self.backbone.guidance_scale:g}: raise it above 1, or leave unguided out"
            )
        return self

    @model_validator(mode="after")
    def _settings_have_no_bank(self) -> Self:
        drawn = self.sampler.num_steps_range or self.sampler.solvers or self.backbone.guidance_scale_range
        if drawn and self.warm_start.bank is not None:
            keys = "sampler.num_steps_range, sampler.solvers and backbone.guidance_scale_range"
            raise ValueError(f"warm_start.bank knows one setting of each image, so {keys} can't be used with it")
        return self

    @model_validator(mode="after")
    def _learners_need_ray(self) -> Self:
        if self.ppo.learners and self.cluster.mode == "serial":
            raise ValueError("ppo.learners are processes of their own: set ppo.learners=0, or cluster.mode=ray")
        return self

    @model_validator(mode="after")
    def _offline_needs_a_bank(self) -> Self:
        if self.ppo.algorithm in {"bc", "marwil"} and self.warm_start.bank is None:
            raise ValueError(
                f"ppo.algorithm={self.ppo.algorithm} learns from a trajectory bank: set warm_start.bank to one"
            )
        return self

    @model_validator(mode="after")
    def _reward_needs_what_is_scored(self) -> Self:
        if self.observation.kind == "latent" and (self.reward.preset, self.reward.credit) != ("paired", "final"):
            raise ValueError(
                "observation.kind=latent scores only the returned image: set reward.preset=paired and "
                "reward.credit=final"
            )
        return self
