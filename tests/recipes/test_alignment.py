"""Which character is spoken when, and attention that is taught to look there."""

from typing import Any

import numpy as np
import torch

from recipes.mini_release.alignment import align, character_places
from recipes.mini_release.guide import attention_of
from tests.helpers.tiny_release import tiny_params
from voxclone.tts.backbone import Backbone


def test_alignment_finds_the_frames_of_each_character() -> None:
    path = [0, 0, 1, 1, 0, 2, 0, 2, 2, 0, 3]
    log_probs = np.full((len(path), 4), np.log(0.01))
    log_probs[np.arange(len(path)), path] = np.log(0.97)
    assert align(log_probs, [1, 2, 2, 3]) is not None
    assert align(log_probs, [1, 2, 2, 3]).tolist() == [2, 5, 7, 10]  # type: ignore[union-attr]
    assert align(log_probs[:3], [1, 2, 2, 3]) is None
    assert align(log_probs, []) is None


def test_places_of_normalised_characters_in_the_text() -> None:
    text, normal = "\u201cWe, the DOGS!\u201d", "we the dogs"
    places = character_places(text, normal)
    letters = [text[p].lower() for p, c in zip(places, normal, strict=True) if c != " "]
    assert "".join(letters) == normal.replace(" ", "")
    assert places == sorted(places)


def test_guided_attention_is_the_layer_s_own() -> None:
    """Recomputed for two heads, it equals what the layer gives with unfused attention."""
    params = tiny_params()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = Backbone(params, attention="eager")
        embedded_BLD = torch.randn(2, 11, params.lm.dim)
    layer = backbone.model.layers[-1].self_attn
    given: list[torch.Tensor] = []
    taken: dict[str, Any] = {}
    layer.register_forward_hook(lambda module, inputs, output: given.append(output[1]))
    layer.register_forward_pre_hook(lambda m, i, named: taken.update(named), with_kwargs=True)
    backbone(embedded_BLD)
    own = attention_of(layer, taken["hidden_states"], taken["position_embeddings"], 2)
    torch.testing.assert_close(own, given[0][:, :2])
