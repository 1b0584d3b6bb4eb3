"""A tiny language model with an acoustic head, and speech that it could have learned from."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from recipes.mini_release.language_model import fresh_model
from recipes.mini_release.layout import small_tekken
from tests.helpers.random_weights import drawn_codec
from tests.helpers.tiny_release import tiny_params
from voxclone.codec.model import Codec
from voxclone.data.corpus import Corpus
from voxclone.release.params import Params
from voxclone.train.sequences import Batch, Example, sequences
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.backbone import Backbone
from voxclone.tts.prompt import PromptMaker


@dataclass(frozen=True)
class TinySpeech:
    """A model of random weights, the codec of its codes, and a corpus."""

    params: Params
    backbone: Backbone
    head: AcousticHead
    codec: Codec
    prompts: PromptMaker
    corpus: Corpus

    def example(self) -> Example:
        """A clip spoken in the voice of another one of its speaker."""
        voice_TK, target_TK = (
            self.codec.encode(self.corpus.wave(index)[None])[0].T for index in (0, 1)
        )
        text_ids = self.prompts.text_ids(self.corpus.clips[1].text or "")
        return Example(voice_TK[:20], text_ids, target_TK, torch.full((len(target_TK),), -1))

    def batch(self, example: Example) -> Batch:
        """What the model reads of an example."""
        return sequences([example], self.prompts, self.params, torch.device("cpu"))


def tiny_speech(corpus: Corpus, folder: Path) -> TinySpeech:
    """A model whose sizes are those of the tiny release."""
    params = tiny_params()
    path = folder / "tekken.json"
    path.write_text(json.dumps(small_tekken({}, frame_rate=100.0)))
    backbone, head = fresh_model(params, 0)
    codec = drawn_codec(params.codec)
    return TinySpeech(params, backbone, head, codec, PromptMaker(path), corpus)
