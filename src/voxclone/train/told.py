"""What an encoder is told of real clips whose words are known.

Encoder, bridge and language model label clips together (`channel`) at the steps that the settings
name; from then on crops of these clips have a loss. A run that goes on reads what it wrote.

Shapes: B batch, S samples, D latent width, T frames, K code books.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from voxclone.codec.model import Codec
from voxclone.data.corpus import Subset, step_generator
from voxclone.train import ranks
from voxclone.train.bridge import Bridge
from voxclone.train.channel import Label, label_clips, stored_labels, told_loss
from voxclone.train.encoder_settings import EncoderTraining
from voxclone.train.parts import LABELS, TOLD
from voxclone.train.ranks import Part
from voxclone.tts.tts import TTS


@dataclass
class Told:
    """The labels of a recovery's clips, which lie in `folder`."""

    settings: EncoderTraining
    model: TTS
    folder: Path
    train: Subset
    labels: dict[int, Label] = field(default_factory=dict)

    def is_due(self, step: int) -> bool:
        """Whether labels must be made or read before this step."""
        at = self.settings.channel.at
        return step in at or (not self.labels and any(each <= step for each in at))

    def renew(self, step: int, codec: Codec, bridge: Bridge | None) -> None:
        """Label clips with the codec's encoder; between the steps of labelling, read the last.
        Raises Interrupted where a signal comes while clips are labelled: nothing of it is kept, and
        whoever goes on from the state before this step makes the same labels."""
        settings = self.settings
        due = max(at for at in settings.channel.at if at <= step)

        def make() -> dict[int, Label]:
            generator = step_generator(settings.run.seed, step, LABELS)
            model, train = self.model, self.train
            return label_clips(codec, bridge, model, train, settings.channel, generator, _heeding)

        clips = str(self.train.identity()["hash"])
        self.hold(stored_labels(self.folder, due, clips, make if step == due else None))

    def hold(self, labels: dict[int, Label]) -> None:
        """Tell these from now on."""
        self.labels = labels
        known = Subset(self.train.corpus, sorted(labels))
        self._known = (known, known.weights(self.settings.evenness))

    def loss(self, step: int, part: Part, codec: Codec) -> Tensor:
        """`channel.told_loss` of crops of labelled clips, each read with the past that it needs."""
        settings, size = self.settings, codec.frame_size
        history = settings.history_of(codec.config)
        known, weights_N = self._known
        drawn = known.crops(
            settings.told_batch,
            (settings.frames + history) * size,
            step_generator(settings.run.seed, step, TOLD),
            weights_N,
            grid=size,
            part=part.of(settings.told_batch),
        )
        quantizer = codec.quantizer
        wave_BS = drawn.wave_BS.to(quantizer.semantic_codebook.cluster_usage.device)
        latent_BDT = codec.require_encoder()(wave_BS).float()
        labels = [self.labels[index] for index in drawn.indices]
        starts = [start // size for start in drawn.starts]
        semantic_BDT, _ = quantizer.split(latent_BDT)
        return told_loss(quantizer.semantic_codebook, semantic_BDT, labels, starts, history)


def _heeding(places: Iterable[int]) -> Iterator[int]:
    """Labelling takes as long as many steps, and who sends a signal may kill before that."""
    for place in places:
        ranks.heed()
        yield place
