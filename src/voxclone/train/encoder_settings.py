"""What `voxclone train encoder CONFIG` reads."""

from pathlib import Path

from pydantic import Field

from voxclone.codec.config import CodecConfig
from voxclone.config import Settings
from voxclone.data.augment import Degradation
from voxclone.data.pairs import PairSettings
from voxclone.train.adversary import AdversarySettings
from voxclone.train.channel import ChannelSettings
from voxclone.train.cloned import CloneSettings
from voxclone.train.defects import Defects
from voxclone.train.run import OptimiserSettings, RunSettings
from voxclone.train.waveform import STFFTS


class EncoderWeights(Settings):
    """Weight of each loss; 0 leaves it out. `waveform` is that of all losses through the waveform
    together (mel, stft, magnitude, l1, low, speaker and feature), where they are balanced."""

    pair_semantic: float = 0.2
    pair_levels: float = 1.0
    cycle_semantic: float = 0.1
    cycle_levels: float = 0.5
    robust_semantic: float = 0.0
    robust_levels: float = 0.0
    mel: float = 2.0
    stft: float = 0.0
    magnitude: float = 0.0
    low: float = 0.0
    critic: float = 0.0
    level_prior: float = 0.0
    usage_prior: float = 0.0
    code_means: float = 0.0
    commitment: float = 0.0
    bridge: float = 0.0
    told: float = 0.0
    cloned: float = 0.0
    l1: float = 0.0
    feature: float = 0.0
    speaker: float = 0.0
    distil: float = 0.0
    diversity: float = 0.0
    scale: float = 0.0
    shaping: float = 0.0
    waveform: float = 1.0


class EncoderTraining(Settings):
    """Values of one recovery. `licences`, where given, leaves out clips under any other."""

    run: RunSettings
    start: str | None = None
    """What the encoder begins as: `fresh`, `release` (the encoder that the release has) or a file.
    It must be said where the release has an encoder; where it has none, an encoder is fresh."""
    model: str = "mini"
    speech: Path | None = None
    licences: tuple[str, ...] | None = None
    texts: Path | None = None
    teacher: str | None = None
    """Folder of a recogniser, or mini, for the weights `bridge` and `distil`."""
    whisper: str | None = None
    """Name or folder of a Whisper that is the teacher of `distil` instead (whole clips, 30 s at
    most; those of the speech that are longer are left out of it)."""
    channel: ChannelSettings = ChannelSettings()
    told_batch: int = 4
    listener: str | None = None
    """Who tells voices apart for the weight `cloned`: `mini` (the packaged network), the folder of
    such a network, or `ge2e`, whose likeness is then no judge of the encoder any more."""
    clones: CloneSettings = CloneSettings()
    cloned_from: int = 0
    cloned_every: int = Field(1, ge=1)
    """Steps from one with the loss `cloned` to the next."""
    optimiser: OptimiserSettings = OptimiserSettings(lr=1e-3, betas=(0.8, 0.99))
    weights: EncoderWeights = EncoderWeights()
    pairs: PairSettings = PairSettings()
    pair_batch: int = 8
    real_batch: int = 8
    frames: int = 24
    history: int | None = Field(None, ge=0)
    """Frames that do not count at the beginning of a crop from within a clip, where the target
    knows the whole clip: `told` (whose crops are read so much longer) and `distil` by Whisper. Not
    given, as many as the encoder looks back over, 21 in the release."""
    perturb_share: float = 0.3
    perturb_levels: float = 0.15
    cycle_from: int = 400
    real_from: int = 200
    mel_scales: tuple[tuple[int, int], ...] = ((1024, 120), (512, 80), (256, 40))
    spectral_floor: float = 0.0
    critic_lr: float = 3e-4
    match_codebook: bool = False
    """Whether semantic latents begin at the size of the code vectors (`initial.match_codebook`)."""
    balance: bool = False
    """Whether losses through the waveform are balanced by their gradients (`waveform.Balancer`)."""
    fade: float = 1.0
    """The weights of `l1` and `stft` are multiplied by it at every step (the paper: 0.9999)."""
    adversary: AdversarySettings = AdversarySettings()
    adversary_lr: float = 3e-4
    adversary_from: int = 0
    adversary_every: int = 1
    speaker_every: int = 1
    """Steps from one with the loss `speaker` to the next."""
    n_ffts: tuple[int, ...] = STFFTS
    degradation: Degradation = Degradation()
    semantic_share: float = 0.5
    acoustic_shares: tuple[float, float] = (0.5, 0.25)
    evenness: float = 0.7
    judged_clips: int = 0
    """Of so many clips with a text the language model says at every validation how likely their
    semantic codes are (it stays in memory for that)."""
    defects: Defects = Defects()

    @property
    def uses_pairs(self) -> bool:
        return bool(self.weights.pair_semantic or self.weights.pair_levels)

    def history_of(self, config: CodecConfig) -> int:
        """`history`, or the encoder's own."""
        return config.encoder_history if self.history is None else self.history

    def hears_clones(self, step: int) -> bool:
        """Whether a step has the loss `cloned`."""
        after = step - max(self.cloned_from, self.real_from)
        return bool(self.weights.cloned) and after >= 0 and after % self.cloned_every == 0
