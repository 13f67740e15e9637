"""The run configuration: frozen models, one file per group of sections."""

from addiffusion.config.reward import RewardSection, Scales, TerminalWeights, Weights
from addiffusion.config.root import (
    ClusterSection,
    Config,
    EvaluationSection,
    PolicySection,
    PpoSection,
    PromptsSection,
    RolloutSection,
    RunSection,
)
from addiffusion.config.sampling import BackboneSection, ObservationSection, RefineSection, SamplerSection
from addiffusion.config.scorers import ScorersSection

__all__ = [
    "BackboneSection",
    "ClusterSection",
    "Config",
    "EvaluationSection",
    "ObservationSection",
    "PolicySection",
    "PpoSection",
    "PromptsSection",
    "RefineSection",
    "RewardSection",
    "RolloutSection",
    "RunSection",
    "SamplerSection",
    "Scales",
    "ScorersSection",
    "TerminalWeights",
    "Weights",
]
