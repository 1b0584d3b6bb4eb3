"""What a user may choose when codes are refined. Nothing heavy is imported."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from voxclone.config import Settings

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class RefineWeights(Settings):
    """Of each loss; 0 leaves it out.

    `mel` and `stft`: of the decoded codes to the recording. `speaker`: 1 - cosine of the packaged
    network. `near_levels`: squared distance from the start, in units of two levels; a start from
    nothing is noise, which levels are not held near to.
    `near_semantic`: divergence from the start's opinion, in nats. `likely_levels`: the model's flow
    loss on the levels. `likely_semantic`: exponent of the model's opinion of semantic codes beside
    the start's.
    """

    mel: NonNegative = 1.0
    stft: NonNegative = 0.3
    speaker: NonNegative = 0.0
    near_levels: NonNegative = 0.02
    near_semantic: NonNegative = 0.05
    likely_levels: NonNegative = 0.1
    likely_semantic: NonNegative = 0.7

    @model_validator(mode="after")
    def _have_a_loss(self) -> "RefineWeights":
        losses = self.model_dump(exclude={"likely_semantic"})
        if not any(losses.values()):
            raise ValueError(
                f"without a loss there is nothing to follow: set one of the weights "
                f"{', '.join(losses)} above 0"
            )
        return self


class RefineSettings(Settings):
    """How codes are refined. The same settings and seed give the same codes on a CPU."""

    steps: int = Field(default=100, ge=0)
    seed: int = Field(default=0, ge=0)
    level_rate: Positive = 0.15
    """Levels that a step may move a level, at first; it falls as a cosine to a twentieth."""
    semantic_rate: Positive = 0.1
    """The same in nats, for the opinion of semantic codes."""
    temperature: tuple[Positive, Positive] = (1.0, 0.3)
    """Of the soft assignment of semantic codes: at the first step, and at the last."""
    floor: NonNegative = 0.01
    """Added to magnitudes: the noise of pauses hardly counts (`audio.distance.mel_loss`)."""
    piece_frames: int = Field(default=250, ge=1)
    """Longer clips are decoded in overlapping pieces of so many frames, all at once."""
    ask_every: int = Field(default=25, ge=1)
    """Steps between two readings by the language model."""
    judge_every: int = Field(default=25, ge=1)
    patience: int = Field(default=2, ge=1)
    """So many judgements below the best one end the run."""
    judge: Literal["gain", "likeness"] = "gain"
    """By which of the two figures the better codes are kept."""
    save_every: int = Field(default=50, ge=1)
    weights: RefineWeights = RefineWeights()

    @model_validator(mode="after")
    def _is_judged_by_another(self) -> "RefineSettings":
        if self.judge == "likeness" and self.weights.speaker:
            raise ValueError(
                "likeness cannot judge codes that were optimised for it: set the weight `speaker` "
                "to 0, or judge by gain"
            )
        return self
