"""What a step draws, and its losses.

Shapes: B items, L positions, D width, K codebooks, T frames, N predicted frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from voxclone.errors import ConfigError
from voxclone.release.tensors import codebook_sizes
from voxclone.rng import step_generator
from voxclone.train.adapter import losses as made
from voxclone.train.adapter.config import AdapterConfig
from voxclone.train.adapter.losses import EmbeddingShape, embedding_loss
from voxclone.train.adapter.material import MIN_FRAMES, KnownUtterance, Material
from voxclone.train.adapter.reading import (
    Item,
    Reading,
    adapted_frames,
    draw_flow,
    embed_reading,
    predicting_states,
    read_items,
    velocities,
)
from voxclone.train.batch import MicroBatch, item_generators
from voxclone.tts.adapter import Adapter
from voxclone.tts.backbone import Backbone

SPEECH, KNOWN, PRESETS = 0, 1, 2
"""Streams of random numbers of a step: triples of speech, distillation, preservation."""
OF_SPEECH, OF_KNOWN, OF_PRESETS = 10**6, 2 * 10**6, 3 * 10**6
HELD_OUT = 5
"""Every so many utterances of presets one is held out, for the gate."""


@dataclass
class Objective:
    """The losses of an adapter. `voices` are the clips of each speaker, `targets` those of them
    that can be predicted."""

    config: AdapterConfig
    material: Material
    adapter: Adapter
    voices: dict[str, list[int]] = field(init=False)
    targets: dict[str, list[int]] = field(init=False)
    known: list[KnownUtterance] = field(init=False)
    shape: EmbeddingShape = field(init=False)

    def __post_init__(self) -> None:
        """Raises ConfigError if nothing can be predicted."""
        material, most = self.material, self.config.target_frames
        check_codes(material)
        clips = material.speech.corpus.clips
        self.voices = material.speech.by_speaker()
        fitting = {
            speaker: [
                i for i in own
                if clips[i].text and MIN_FRAMES <= material.clips[i].shape[1] <= most
            ]
            for speaker, own in self.voices.items()
        }  # fmt: skip
        self.targets = {speaker: own for speaker, own in fitting.items() if own}
        if not self.targets:
            raise ConfigError(
                f"No clip with a text has {MIN_FRAMES} to {most} frames: raise `target_frames`."
            )
        self.known = [each for i, each in enumerate(material.known) if i % HELD_OUT]
        if not self.known:
            raise ConfigError("There are too few utterances of presets: raise `utterances`.")
        self.shape = EmbeddingShape.of([each.to(self.device) for each in material.presets.values()])

    @property
    def backbone(self) -> Backbone:
        return self.material.tts.backbone

    @property
    def device(self) -> torch.device:
        return self.material.tts.device

    def losses(self, step: int, micro: MicroBatch) -> dict[str, Tensor]:
        """The losses of a micro-batch that have a weight."""
        weights = self.config.weights
        found: dict[str, Tensor] = {}
        if weights.uses_speech:
            found |= self._speech_losses(step, micro)
        if weights.distills:
            found |= self._distillation(step, micro)
        if weights.preset:
            found |= self._preservation(step, micro)
        return found

    def _speech_losses(self, step: int, micro: MicroBatch) -> dict[str, Tensor]:
        config, head = self.config, self.material.tts.head
        own = micro.of(config.batch)
        items = draw_triples(self, config.batch, step_generator(config.run.seed, step, SPEECH))
        reading = self._read(items[own])
        voices_ND = [adapted_frames(self.backbone, item) for item in reading.items]
        found: dict[str, Tensor] = {}
        if config.weights.embedding:
            found["embedding"] = embedding_loss(voices_ND, self.shape)
        if not (config.weights.semantic or config.weights.flow):
            return found
        embedded_BLD = embed_reading(self.backbone, reading, voices_ND)
        hidden_ND = predicting_states(self.backbone(embedded_BLD), reading)
        if config.weights.semantic:
            log_prob_NV = made.semantic_log_probs(head, hidden_ND)
            found["semantic"] = made.semantic_loss(log_prob_NV, reading, config.weights.end)
        if config.weights.flow:
            draw = draw_flow(head, reading, item_generators(config.run.seed, step, OF_SPEECH, own))
            found["flow"] = made.flow_loss(velocities(head, hidden_ND, draw), draw, reading)
        return found

    def _distillation(self, step: int, micro: MicroBatch) -> dict[str, Tensor]:
        """The adapted model reads the encoder's codes, the frozen one the true codes."""
        config = self.config
        own = micro.of(config.preset_batch)
        generator = step_generator(config.run.seed, step, KNOWN)
        pairs = [draw_known(self, generator) for _ in range(config.preset_batch)][own]
        sources = item_generators(config.run.seed, step, OF_KNOWN, own)
        student, teacher = ([pair[side] for pair in pairs] for side in (0, 1))
        return self._compare(student, teacher, sources, preset=False)

    def _preservation(self, step: int, micro: MicroBatch) -> dict[str, Tensor]:
        """Both models read a preset as it is stored."""
        config = self.config
        own = micro.of(config.preset_batch)
        generator = step_generator(config.run.seed, step, PRESETS)
        items = []
        for _ in range(config.preset_batch):
            each = self.known[_below(len(self.known), generator)]
            voice_ND = self.material.presets[each.preset]
            items.append(Item(voice_ND, each.text, each.codes_KT, stored=True))
        sources = item_generators(config.run.seed, step, OF_PRESETS, own)
        found = self._compare(items[own], items[own], sources, preset=True)
        return {"preset": found["semantic_kl"] + found["velocity"]}

    def _compare(
        self,
        student: Sequence[Item],
        teacher: Sequence[Item],
        sources: Sequence[torch.Generator],
        *,
        preset: bool,
    ) -> dict[str, Tensor]:
        """Distances of the adapted model's reading to the frozen one's."""
        weights, head = self.config.weights, self.material.tts.head
        layers = bool(weights.hidden) and not preset
        with torch.no_grad(), self.adapter.disabled():
            known = self._read(teacher)
            draw = draw_flow(head, known, sources)
            states_BLD = self._states(known, layers=layers)
            true_ND = predicting_states(states_BLD[-1], known)
            true_NV = made.semantic_log_probs(head, true_ND)
            true_NC = velocities(head, true_ND, draw)
        reading = self._read(student)
        own_BLD = self._states(reading, layers=layers)
        hidden_ND = predicting_states(own_BLD[-1], reading)
        found: dict[str, Tensor] = {}
        if layers:
            found["hidden"] = made.hidden_loss(own_BLD, states_BLD, reading.counts_BL)
        if weights.semantic_kl or preset:
            own_NV = made.semantic_log_probs(head, hidden_ND)
            found["semantic_kl"] = made.kl_loss(own_NV, true_NV, reading.item_N)
        if weights.velocity or preset:
            found["velocity"] = made.velocity_loss(head, hidden_ND, true_NC, draw, reading)
        return found

    def _read(self, items: Sequence[Item]) -> Reading:
        tts = self.material.tts
        return read_items(items, tts.prompts, tts.params, self.device)

    def _states(self, reading: Reading, *, layers: bool) -> list[Tensor]:
        """The states [B, L, D] of all layers (if asked), and those after the final norm."""
        voices_ND = [adapted_frames(self.backbone, item) for item in reading.items]
        embedded_BLD = embed_reading(self.backbone, reading, voices_ND)
        found: list[Tensor] = []
        handles = [
            layer.register_forward_hook(lambda module, given, state_BLD: found.append(state_BLD))
            for layer in (self.backbone.model.layers if layers else ())
        ]
        try:
            last_BLD = self.backbone(embedded_BLD)
        finally:
            for handle in handles:  # a layer that is computed again must not add to `found`
                handle.remove()
        return [*found, last_BLD]


def check_codes(material: Material) -> None:
    """Raise ConfigError for codes that no codebook has, of clips or of utterances."""
    sizes_K1 = torch.tensor(codebook_sizes(material.tts.params))[:, None]
    utterances = [*material.recordings, *material.known]
    named = {f"clip {material.speech.corpus.clips[i].id}": c for i, c in material.clips.items()}
    named |= {f"utterance {i}": each.codes_KT for i, each in enumerate(utterances)}
    named |= {f"decoded utterance {i}": each.encoded_KT for i, each in enumerate(utterances)}
    for name, codes_KT in named.items():
        wrong_KT = (codes_KT < 0) | (codes_KT >= sizes_K1)
        if bool(wrong_KT.any()):
            book = int(wrong_KT.any(dim=1).float().argmax())
            raise ConfigError(
                f"The {name} has the code {int(codes_KT[book].max())} in codebook {book}, which "
                f"has {int(sizes_K1[book])} codes: the encoder is of another release, or the "
                "folder of the run is damaged."
            )


def draw_triples(objective: Objective, count: int, generator: torch.Generator) -> list[Item]:
    """Triples of one speaker each: the codes of a clip as the voice, and another clip with its
    words. Speakers are drawn alike."""
    clips, codes = objective.material.speech.corpus.clips, objective.material.clips
    names = list(objective.targets)
    items = []
    for _ in range(count):
        name = names[_below(len(names), generator)]
        fitting = objective.targets[name]
        target = fitting[_below(len(fitting), generator)]
        others = [index for index in objective.voices[name] if index != target]
        voice_KT = codes[others[_below(len(others), generator)]]
        most = objective.config.voice_frames
        items.append(Item(voice_KT[:, :most], clips[target].text or "", codes[target]))
    return items


def draw_known(objective: Objective, generator: torch.Generator) -> tuple[Item, Item]:
    """What student and teacher read: an utterance of a preset, after the preset's recording or
    another utterance of it; the student gets the encoder's codes of the voice."""
    known, most = objective.known, objective.config.voice_frames
    each = known[_below(len(known), generator)]
    voices = [v for v in objective.material.recordings if v.preset == each.preset]
    voices += [v for v in known if v.preset == each.preset and v is not each]
    voice = voices[_below(len(voices), generator)]
    student = Item(voice.encoded_KT[:, :most], each.text, each.codes_KT)
    return student, Item(voice.codes_KT[:, :most], each.text, each.codes_KT)


def _below(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))
