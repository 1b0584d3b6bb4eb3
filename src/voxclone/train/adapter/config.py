"""What `voxclone train adapter CONFIG` reads: the values of a recipe.

Where things lie (release, encoder, speech, device) are options of the command.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from voxclone.config import Settings
from voxclone.train.loop import RunSettings
from voxclone.train.optim import OptimizerSettings
from voxclone.tts.adapter import AdapterSettings

CONFIGS = Path(__file__).parent / "configs"
"""The recipes that come with the package."""
Weight = Annotated[float, Field(ge=0)]
Frames = Annotated[int, Field(ge=13)]


class AdapterRun(RunSettings):
    """`micro_batches` does a step's batch in so many parts, one after another. With
    `gradient_checkpointing` layers are computed again in the backward pass, in less memory.
    `shard` divides the frozen layers over the processes (FSDP2), where one GPU does not hold
    them."""

    micro_batches: int = Field(default=1, ge=1)
    gradient_checkpointing: bool = False
    shard: bool = False


class AdapterWeights(Settings):
    """Weight of each loss; 0 leaves it out. `end` is none: it is how much the END code counts in
    `semantic`, where every other code counts 1. What each loss is: `train/adapter/losses.py`."""

    hidden: Weight = 0.0
    semantic_kl: Weight = 0.0
    velocity: Weight = 0.0
    semantic: Weight = 0.0
    flow: Weight = 0.0
    end: Weight = 1.0
    preset: Weight = 0.0
    embedding: Weight = 0.0

    @property
    def distills(self) -> bool:
        """Whether there are losses on speech of the release, whose codes are known."""
        return bool(self.hidden or self.semantic_kl or self.velocity)

    @property
    def uses_speech(self) -> bool:
        """Whether there are losses on real speech."""
        return bool(self.semantic or self.flow or self.embedding)


class GateConfig(Settings):
    """The generated speech that selects an adapter, and that it is accepted by: `sentences` by
    `speakers` of the split `valid` at every validation; by all speakers of the split `test` and all
    presets at the end. References have `reference_seconds`. Two embedders must agree; neither may
    have trained the adapter."""

    embedders: tuple[str, ...] = ("ge2e", "mini")
    transcriber: str = "mini"
    speakers: int = Field(default=8, ge=2)
    sentences: int = Field(default=2, ge=1)
    seeds: int = Field(default=1, ge=1)
    reference_seconds: float = Field(default=10.0, ge=1)


class AdapterConfig(Settings):
    """Values of one training. `licenses`, where given, leaves out clips under any other."""

    run: AdapterRun
    adapter: AdapterSettings
    optimizer: OptimizerSettings = OptimizerSettings(lr=1e-5, weight_decay=0.0, warmup_steps=100)
    weights: AdapterWeights = AdapterWeights()
    gate: GateConfig = GateConfig()

    licenses: tuple[str, ...] | None = None
    minutes: float = Field(120.0, gt=0)
    """At most so much speech is used, speakers in turn."""
    consent: str = ""
    """The speakers' consent, in words; it goes into the adapter's folder."""
    batch: int = Field(default=8, ge=1)
    """Triples of real speech in a step: a voice, a text, and another clip that says it."""
    preset_batch: int = Field(default=8, ge=1)
    """Utterances of presets in a step, for each of distillation and preservation."""
    utterances: int = Field(100, ge=1)
    """Utterances that the frozen model speaks with its presets before the training."""
    voice_frames: Frames = 125
    """The longest voice: 10 s."""
    target_frames: Frames = 125
    """The longest clip that is predicted."""
