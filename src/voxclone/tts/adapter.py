"""Adapters of a frozen model: what lets it read an encoder's codes as the voice that they mean.

Three readers of growing reach:
- `voice`: a residual network on the voice's frames in the prompt, whose last layer begins at zero;
- `table`: a sum to the rows of the audio embedding table, that of voices and of generated frames;
- `lora`: low-rank sums to matrices of the language model and the acoustic head, by peft
  (arXiv 2106.09685).

All are fp32. With the scale 0 nothing of an adapter runs, so that the model is the base bit for
bit: the teacher of a training is the same model at that scale.

Shapes: N frames of a voice embedding, D width, V table rows, R rank, O and I sizes of a matrix.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from voxclone.config import Settings
from voxclone.errors import ConfigError, MissingExtraError, ReleaseError
from voxclone.tts.acoustic import AcousticHead
from voxclone.tts.backbone import Backbone

Target = Literal["q", "k", "v", "o", "mlp", "acoustic"]
MODULES: dict[Target, tuple[str, ...]] = {
    "q": ("backbone.model.layers.*.self_attn.q_proj",),
    "k": ("backbone.model.layers.*.self_attn.k_proj",),
    "v": ("backbone.model.layers.*.self_attn.v_proj",),
    "o": ("backbone.model.layers.*.self_attn.o_proj",),
    "mlp": tuple(f"backbone.model.layers.*.mlp.{name}_proj" for name in ("gate", "up", "down")),
    "acoustic": (
        *(f"head.layers.*.attention.{name}" for name in ("wq", "wk", "wv", "wo")),
        *(f"head.layers.*.feed_forward.{name}" for name in ("w1", "w2", "w3")),
    ),
}
"""The modules that each target means; `*` is the number of a layer."""
PEFT = "base_model.model."
"""What peft puts before the name of a module in an adapter's file."""
NAME = "default"
"""peft's name of an adapter that has none."""


class AdapterSettings(Settings):
    """Which reader, and how large: `rank` is that of every matrix with `lora`, and the width of the
    residual network with `voice`. What a LoRA adds is scaled by `alpha` / `rank`."""

    reader: Literal["voice", "table", "lora"]
    rank: int = 8
    alpha: int = Field(default=16, ge=1)
    targets: tuple[Target, ...] = ("q", "k", "v", "o")


class VoiceResidual(nn.Module):
    """x + rms(x) W_up silu(W_down x / rms(x)) for each frame of a voice but the last one, the END
    frame. `scale` multiplies what is added."""

    def __init__(self, dim: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, dim))
        self.up = nn.Parameter(torch.zeros(dim, rank))
        self.scale = 1.0

    def residual(self, voice_ND: Tensor) -> Tensor:
        """What is added [N, D], in fp32, to frames that are no END frames."""
        power_N1 = voice_ND.float().square().mean(dim=-1, keepdim=True)
        rms_N1 = power_N1.clamp(min=1e-12).sqrt()
        inner_NR = F.silu(F.linear(voice_ND.float() / rms_N1, self.down))
        return self.scale * rms_N1 * F.linear(inner_NR, self.up)

    def forward(self, voice_ND: Tensor) -> Tensor:
        if self.scale == 0:
            return voice_ND
        adapted_ND = voice_ND[:-1].float() + self.residual(voice_ND[:-1])
        return torch.cat([adapted_ND.to(voice_ND.dtype), voice_ND[-1:]])


class TableDelta(nn.Module):
    """What is added to the embedding table [V, D]. `scale` multiplies it."""

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(rows, dim))
        self.scale = 1.0

    def forward(self, table_VD: Tensor) -> Tensor:
        return table_VD if self.scale == 0 else table_VD.float() + self.scale * self.rows


class AdapterParameters(nn.Module):
    """Parameters that live in other modules, under their names in an adapter's file."""

    def __init__(self, named: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        for name, parameter in named.items():
            self.register_parameter(name.replace(".", "/"), parameter)

    def named(self) -> dict[str, nn.Parameter]:
        return {name.replace("/", "."): value for name, value in self.named_parameters()}


@dataclass
class Adapter:
    """An adapter in a model. `parameters` are all that learns; `modules` are the parts that are
    adapted, by name, and `norms` the Frobenius norm of the base there (1 where nothing is)."""

    settings: AdapterSettings
    parameters: AdapterParameters
    modules: dict[str, Any]
    norms: dict[str, float]
    scale: float = 1.0

    def set_scale(self, scale: float) -> None:
        """Multiply what the adapter adds; 0 switches it off."""
        self.scale = scale
        settings = self.settings
        for module in self.modules.values():
            if settings.reader == "lora":
                module.scaling[NAME] = scale * settings.alpha / settings.rank
                module._disable_adapters = scale == 0
            else:
                module.scale = scale

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Within, the model is the base."""
        scale = self.scale
        self.set_scale(0.0)
        try:
            yield
        finally:
            self.set_scale(scale)

    def tensors(self) -> dict[str, Tensor]:
        """The parameters under their names in a file, on the CPU."""
        named = self.parameters.named()
        return {name: value.detach().cpu().clone() for name, value in named.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave (of this shape: see `require_fit`)."""
        with torch.no_grad():
            for name, parameter in self.parameters.named().items():
                parameter.copy_(tensors[name])

    def changes(self) -> dict[str, float]:
        """The size of what is added to each module, as a share of what it is added to (Frobenius
        norms). For the reader `voice` the norm of its last layer, which is 0 at first."""
        found = {}
        with torch.no_grad():
            for name, module in self.modules.items():
                if isinstance(module, VoiceResidual):
                    added = module.up
                elif isinstance(module, TableDelta):
                    added = module.rows
                else:
                    added = module.get_delta_weight(NAME)
                found[name] = float(added.norm()) / self.norms[name]
        return found


def attach(
    backbone: Backbone, head: AcousticHead, settings: AdapterSettings, seed: int = 0
) -> Adapter:
    """Put a new adapter into a frozen model, which then gives what it gave before. Raises
    ConfigError for a rank that a matrix does not have, and for no targets."""
    generator = torch.Generator().manual_seed(seed)
    table_VD, dim = backbone.audio_table.weight, backbone.params.lm.dim
    modules: dict[str, Any]
    named: dict[str, nn.Parameter]
    if settings.reader == "voice":
        _check_rank(settings.rank, dim, "a frame of the voice")
        residual = VoiceResidual(dim, settings.rank).to(table_VD.device)
        _fill_uniform(residual.down, generator)
        backbone.voice_residual = residual
        modules = {"voice_residual": residual}
        named = {f"voice_residual.{name}": value for name, value in residual.named_parameters()}
    elif settings.reader == "table":
        delta = TableDelta(len(table_VD), dim).to(table_VD.device)
        backbone.table_delta = delta
        modules, named = {"table_delta": delta}, {"table_delta.rows": delta.rows}
    else:
        modules, named = _inject_lora(backbone, head, settings, generator)
    norms = {
        name: float(table_VD.float().norm()) if settings.reader == "table" else 1.0
        for name in modules
    }
    if settings.reader == "lora":
        norms = {n: float(module.base_layer.weight.float().norm()) for n, module in modules.items()}
    return Adapter(settings, AdapterParameters(named), modules, norms)


def target_modules(backbone: Backbone, head: AcousticHead, settings: AdapterSettings) -> list[str]:
    """The names of the matrices that a LoRA is added to. Raises ConfigError as `attach` does."""
    patterns = [pattern for target in settings.targets for pattern in MODULES[target]]
    if not patterns:
        raise ConfigError(
            "`adapter.targets` is empty, so nothing would learn: name some of "
            f"{', '.join(MODULES)}."
        )
    wanted = re.compile(
        "|".join(each.replace(".", r"\.").replace("*", r"\d+") for each in patterns)
    )
    found = []
    for name, module in nn.ModuleDict({"backbone": backbone, "head": head}).named_modules():
        if wanted.fullmatch(name):
            found.append(name)
            _check_rank(settings.rank, min(module.weight.shape), name)
    return found


def require_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    """Raise ReleaseError for tensors of other names or shapes than an adapter of this model has,
    and for values that are not finite. `source` names their file in messages."""
    if expected.keys() != found.keys():
        wrong = sorted(expected.keys() ^ found.keys())
        raise ReleaseError(
            f"{source} does not hold the tensors of its adapter: {wrong[0]} is "
            f"{'missing' if wrong[0] in expected else 'not one of them'}, and {len(wrong) - 1} "
            "more differ. Fetch the adapter again."
        )
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            raise ReleaseError(
                f"In {source}, {name!r} is {list(tensor.shape)} instead of "
                f"{list(expected[name].shape)}: the adapter is of another model."
            )
        if not bool(tensor.isfinite().all()):
            raise ReleaseError(
                f"In {source}, {name!r} has values that are not finite: its training had failed, "
                "or the file is damaged. Fetch the adapter again."
            )


def _inject_lora(
    backbone: Backbone, head: AcousticHead, settings: AdapterSettings, generator: torch.Generator
) -> tuple[dict[str, Any], dict[str, nn.Parameter]]:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise MissingExtraError("peft", "adapter", "A LoRA") from None
    names = target_modules(backbone, head, settings)
    both = nn.ModuleDict({"backbone": backbone, "head": head})
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=names)
    with torch.random.fork_rng(devices=[]):  # peft draws what is drawn again below
        inject_adapter_in_model(config, both)
    modules: dict[str, Any] = {name: both.get_submodule(name) for name in names}
    named = {}
    for name, module in modules.items():
        for half in ("lora_A", "lora_B"):
            layer = getattr(module, half)[NAME].float()
            named[f"{PEFT}{name}.{half}.weight"] = layer.weight
            if half == "lora_A":
                _fill_uniform(layer.weight, generator)
    return modules, named


def _fill_uniform(weight_RI: Tensor, generator: torch.Generator) -> None:
    """Uniform numbers of the variance 1 / (3 I), as `nn.Linear` begins."""
    bound = weight_RI.shape[1] ** -0.5
    drawn_RI = torch.rand(weight_RI.shape, generator=generator) * 2 - 1
    with torch.no_grad():
        weight_RI.copy_(bound * drawn_RI)


def _check_rank(rank: int, most: int, where: str) -> None:
    if not 1 <= rank <= most:
        raise ConfigError(
            f"`adapter.rank` is {rank}, and {where} allows 1 to {most}: choose one of these."
        )
