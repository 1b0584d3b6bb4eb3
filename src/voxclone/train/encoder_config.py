"""What `voxclone train encoder CONFIG` reads: the values of a recipe.

Where things lie (release, speech, first encoder, device) are options of the command and no values
of a recipe. What no shipped recipe changes is a constant in the module that uses it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from voxclone.config import Settings
from voxclone.data.augment import Degradation
from voxclone.errors import ConfigError, shorten
from voxclone.readers import require_local
from voxclone.train.loop import RunSettings
from voxclone.train.losses import STFT_SIZES
from voxclone.train.optim import OptimizerSettings

CONFIGS = Path(__file__).parent / "configs"
"""The recipes that come with the package."""


def packaged_config(name: str) -> Path:
    """The file of a recipe that comes with the package."""
    return CONFIGS / f"{name}.yaml"


def find_config(config: Path, folder: Path = CONFIGS) -> Path:
    """The file that is named, or the recipe of that name in the package's `folder`. Raises
    ConfigError, with the names, for neither."""
    require_local(config)
    if config.exists() or config.suffix or len(config.parts) > 1:
        return config
    packaged = folder / f"{config.name}.yaml"
    if not packaged.is_file():
        names = sorted(each.stem for each in packaged.parent.glob("*.yaml"))
        raise ConfigError(
            f"There is no config {shorten(config)}: name a YAML file, or one of {', '.join(names)}."
        )
    return packaged


class EncoderRun(RunSettings):
    """`micro_batches` does a step's batch in so many, one after another, where memory does not hold
    it. Means over items and over the frames of pairs stay what they are; what divides by the
    statistics of a batch (`stft`, `l1`, `low`, `feature_matching`, `level_prior`, `diversity`,
    `scale`, `pseudo_label`, `asr_distillation`, the balancer) takes a micro-batch's. With
    `gradient_checkpointing` the blocks of encoder and decoder are computed again in the backward
    pass, in less memory: the batch stays whole. `ema` is the decay of a mean of the encoder's
    weights, which is then what is validated and written (0: none).
    """

    micro_batches: int = Field(1, ge=1)
    gradient_checkpointing: bool = False
    ema: float = Field(0.0, ge=0, lt=1)
    collapse_check_from: int | None = 1000
    """The step from which an encoder that has collapsed or saturated (`monitor.collapse`) ends the
    run; before it, every encoder is. Null: it never does."""


class LossWeights(Settings):
    """Weight of each loss; 0 leaves it out."""

    pair_semantic: float = 0.2
    pair_levels: float = 1.0
    mel: float = 2.0
    stft: float = 0.0
    magnitude: float = 0.0
    l1: float = 0.0
    low: float = 0.0
    feature_matching: float = 0.0
    speaker_similarity: float = 0.0
    commitment: float = 0.0
    asr_distillation: float = 0.0
    diversity: float = 0.0
    scale: float = 0.0
    level_prior: float = 0.0
    bridge: float = 0.0
    pseudo_label: float = 0.0
    speaker_contrastive: float = 0.0


class PairConfig(Settings):
    """Pairs by the language model: `minutes` of them are made with the packaged texts, or those are
    read that `voxclone data pairs` stored in `folder`."""

    folder: Path | None = None
    minutes: float = Field(default=20.0, ge=0)


class PseudoLabelConfig(Settings):
    """`label_steps` are the steps before which `clips` clips are labeled anew (none: never);
    `batch` crops of them are in a step."""

    label_steps: tuple[int, ...] = ()
    clips: int = 800
    batch: int = 4


class DiscriminatorConfig(Settings):
    """Channels of the STFT discriminators (the paper: 256), and the step from which there are
    losses of theirs."""

    channels: int = 16
    start: int = 0


class SpeakerLossConfig(Settings):
    """The speaker loss through the language model, from the step `start` on in every `every` steps.
    `speaker_encoder` tells voices apart: `mini` (the packaged network), the folder of such a
    network, or `ge2e`, which must not measure the encoder's speaker similarity then. So many
    clones of a step are in memory at a time as `micro_batch` says."""

    speaker_encoder: str | None = None
    micro_batch: int = Field(default=8, ge=1)
    start: int = 0
    every: int = Field(default=1, ge=1)


class EncoderConfig(Settings):
    """Values of one training. `licenses`, where given, leaves out clips under any other."""

    run: EncoderRun
    optimizer: OptimizerSettings = OptimizerSettings(lr=1e-3, betas=(0.8, 0.99))
    weights: LossWeights = LossWeights()

    licenses: tuple[str, ...] | None = None
    speaker_balance: float = 0.7
    """How evenly speakers are drawn: 0 draws seconds alike, 1 draws speakers alike."""
    pair_batch: int = 8
    real_batch: int = 8
    frames: int = 24
    """Length of pairs and of crops of real speech."""
    real_from: int = 200
    """The step from which there is real speech."""
    left_context: int | None = Field(None, ge=0)
    """Frames that do not count at the beginning of a crop from within a clip, where the target
    knows the whole clip: pseudo-labels (whose crops are read so much longer) and Whisper's tokens.
    Not given, as many as the encoder looks back over, 21 in the release."""
    pairs: PairConfig = PairConfig()
    augmentation: Degradation = Degradation()

    match_codebook: bool = False
    """Whether semantic latents begin at the size of the code vectors
    (`initialization.match_codebook`)."""
    stochastic_quantization: bool = True
    """The paper's 50 % of semantic latents, and 50 % and 25 % of acoustic ones; otherwise every
    latent is quantized, as in use."""
    mel_scales: tuple[tuple[int, int], ...] = ((1024, 120), (512, 80), (256, 40))
    """Windows and bands of `mel`."""
    stft_sizes: tuple[int, ...] = STFT_SIZES
    """Windows of `stft` and `magnitude`."""
    spectral_floor: float = 0.0
    """Added to the magnitudes of `mel` and `stft`: the noise of pauses, which nobody can predict,
    hardly counts."""
    decay: float = 1.0
    """The weights of `l1` and `stft` are multiplied by it at every step (the paper: 0.9999)."""
    balance: bool = False
    """Whether losses through the waveform are balanced by their gradients
    (`losses.balanced_gradient`)."""
    discriminators: DiscriminatorConfig = DiscriminatorConfig()
    teacher: str | None = None
    """The ASR model of `bridge` and `asr_distillation`: `mini` (the packaged one), the folder of a
    CTC recognizer, or a Whisper by name or folder."""
    pseudo_labels: PseudoLabelConfig = PseudoLabelConfig()
    speaker_loss: SpeakerLossConfig = SpeakerLossConfig()

    renamed: ClassVar[Mapping[str, str]] = {
        "model": "the option `--model`",
        "speech": "the option `--speech`",
        "start": "the option `--init`",
        "run.device": "the option `--device`",
        "texts": "`voxclone data pairs --texts FILE`, and `pairs.folder` here",
        "pairs.cfg": "`voxclone data pairs --set cfg=...`, and `pairs.folder` here",
        "pairs.temperature": "`voxclone data pairs --set temperature=...`, and `pairs.folder` here",
        "licences": "`licenses`",
        "optimiser": "`optimizer` (`lr`, `betas`, `weight_decay`, `warmup_steps`, `muon`)",
        "run.accumulate": "`run.micro_batches`",
        "run.stop_when_sick": "`run.collapse_check_from`",
        "run.stop_on_collapse": "`run.collapse_check_from` (null: never)",
        "run.sick_from": "`run.collapse_check_from`",
        "evenness": "`speaker_balance`",
        "history": "`left_context`",
        "fade": "`decay`",
        "n_ffts": "`stft_sizes`",
        "whisper": "`teacher`",
        "listener": "`speaker_loss.speaker_encoder`",
        "clones": "`speaker_loss` (`micro_batch` was `at_once`)",
        "cloned_from": "`speaker_loss.start`",
        "cloned_every": "`speaker_loss.every`",
        "channel": "`pseudo_labels` (`label_steps` was `at`; `clips`)",
        "told_batch": "`pseudo_labels.batch`",
        "adversary": "`discriminators` (`channels`, `start`)",
        "adversary_from": "`discriminators.start`",
        "degradation": "`augmentation` (`snr_db`, `rough_db`)",
        "semantic_share": "`stochastic_quantization` (true for 0.5, false for 1)",
        "acoustic_shares": "`stochastic_quantization` (true for [0.5, 0.25], false for [1, 0])",
        "weights.told": "`weights.pseudo_label`",
        "weights.cloned": "`weights.speaker_contrastive`",
        "weights.feature": "`weights.feature_matching`",
        "weights.speaker": "`weights.speaker_similarity`",
        "weights.distil": "`weights.asr_distillation`",
        **dict.fromkeys(
            (
                "defects", "cycle_from", "critic_lr", "judged_clips", "adversary_lr",
                "adversary_every", "speaker_every", "perturb_share", "perturb_levels",
                "run.log_every", "run.most_skipped", "weights.cycle_semantic",
                "weights.cycle_levels", "weights.robust_semantic", "weights.robust_levels",
                "weights.critic", "weights.usage_prior", "weights.code_means", "weights.shaping",
                "weights.waveform",
            ),
            "",
        ),
    }  # fmt: skip
    """Empty: it was removed."""

    @property
    def uses_pairs(self) -> bool:
        return bool(self.weights.pair_semantic or self.weights.pair_levels)

    @property
    def step_values(self) -> "StepValues":
        """What a step depends on."""
        run, speakers = self.run, self.speaker_loss
        return StepValues(
            seed=run.seed, steps=run.steps, micro_batches=run.micro_batches, autocast=run.autocast,
            weights=self.weights.model_dump(), decay=self.decay, balance=self.balance,
            frames=self.frames, pair_batch=self.pair_batch if self.uses_pairs else 0,
            real_batch=self.real_batch, real_from=self.real_from,
            label_batch=self.pseudo_labels.batch, label_steps=self.pseudo_labels.label_steps,
            speaker_balance=self.speaker_balance, augmentation=self.augmentation,
            left_context=self.left_context, stochastic_quantization=self.stochastic_quantization,
            spectral_floor=self.spectral_floor, stft_sizes=self.stft_sizes,
            mel_scales=self.mel_scales, discriminators_from=self.discriminators.start,
            speakers_from=max(speakers.start, self.real_from), speakers_every=speakers.every,
            speakers_at_a_time=speakers.micro_batch,
        )  # fmt: skip


@dataclass(frozen=True)
class StepValues:
    """The values of a config that a step depends on, mostly under the names that they have there.
    `pair_batch` is 0 where pairs have no weight; `discriminators_from` and `speakers_from` are the
    first steps with these losses."""

    seed: int
    steps: int
    micro_batches: int
    autocast: bool
    weights: dict[str, float]
    decay: float
    balance: bool
    frames: int
    pair_batch: int
    real_batch: int
    real_from: int
    label_batch: int
    label_steps: tuple[int, ...]
    speaker_balance: float
    augmentation: Degradation
    left_context: int | None
    stochastic_quantization: bool
    spectral_floor: float
    stft_sizes: tuple[int, ...]
    mel_scales: tuple[tuple[int, int], ...]
    discriminators_from: int
    speakers_from: int
    speakers_every: int
    speakers_at_a_time: int
