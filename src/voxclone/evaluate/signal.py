"""Figures of a signal against its reference: spectral distances, PESQ, ESTOI, SI-SDR, level.

Every figure takes (reference, estimate) at 24 kHz and cuts the longer of the two at its end. A
distance falls as the estimate improves; PESQ, ESTOI and SI-SDR rise. The Voxtral paper names mel
and STFT distances without defining them, so only figures from this module may be compared.

Shapes: B batch, S samples, F samples in a frame.
"""

import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from voxclone.audio.files import SAMPLING_RATE
from voxclone.audio.spectrum import magnitudes, mel_spectrogram
from voxclone.errors import AudioError, MissingExtraError

MODEL_RATE = 16000  # what PESQ, speaker networks and recognisers hear
FLOOR = 1e-5  # magnitudes below count as equal: about -100 dB under a full-scale sine
SILENCE = 1e-5  # a peak below (-100 dBFS) is digital silence, of which no figure is defined
# The C code of PESQ has room for 50 utterances and crashes beyond; each takes 0.4 s at least.
PESQ_SECONDS = 20
STFT_SIZES = (2048, 1024, 512)

_HALF_TAPS = 102  # resampling: pass band to 7.3 kHz, stop band from 8.0 kHz at -80 dB
_CUTOFF_HZ = 7650.0
_KAISER_BETA = 8.0


@dataclass(frozen=True)
class SignalScores:
    """All figures of one clip; None means not measured, and `missing` says why, by figure.

    `level_difference` is the level of the estimate minus that of the reference, in dB.
    """

    mel_distance: float
    stft_distance: float
    si_sdr: float | None
    level_difference: float | None
    pesq: float | None
    estoi: float | None
    missing: dict[str, str] = field(default_factory=dict)


def evaluate_pair(reference_S: Tensor, estimate_S: Tensor) -> SignalScores:
    """All figures of one clip at 24 kHz. A figure that cannot be had is None, never 0.

    Raises AudioError when the reference is silent, or either wave is empty or not finite: then
    there is nothing to compare.
    """
    reference_S, estimate_S = _aligned(reference_S, estimate_S)
    missing: dict[str, str] = {}

    def measured(name: str, figure: Callable[[Tensor, Tensor], float]) -> float | None:
        try:
            return figure(reference_S, estimate_S)
        except (MissingExtraError, AudioError) as error:
            missing[name] = str(error)
            return None

    return SignalScores(
        mel_distance=mel_distance(reference_S, estimate_S),
        stft_distance=stft_distance(reference_S, estimate_S),
        si_sdr=measured("si_sdr", si_sdr),
        level_difference=measured("level_difference", level_difference),
        pesq=measured("pesq", pesq),
        estoi=measured("estoi", estoi),
        missing=missing,
    )


def mel_distance(reference_S: Tensor, estimate_S: Tensor) -> float:
    """Mean absolute difference of log10 mel magnitudes (so 1 = 20 dB everywhere).

    80 Slaney bands from 0 to 12 kHz with peak 1, n_fft 1024, hop 256, Hann window, zeros beyond
    the edges, magnitudes clamped at 1e-5 before the logarithm.
    """
    a_BS, b_BS = (wave_S[None] for wave_S in _aligned(reference_S, estimate_S))
    a_BMT, b_BMT = (
        mel_spectrogram(wave_BS, 1024, 256, 80).clamp(min=FLOOR).log10() for wave_BS in (a_BS, b_BS)
    )
    return float((a_BMT - b_BMT).abs().mean())


def stft_distance(reference_S: Tensor, estimate_S: Tensor) -> float:
    """Mean absolute difference of natural log STFT magnitudes (1 = 8.7 dB everywhere).

    The mean over n_fft 2048, 1024 and 512 with hop n_fft / 4 of the mean over bins and frames;
    Hann window, zeros beyond the edges, magnitudes clamped at 1e-5.
    """
    a_BS, b_BS = (wave_S[None] for wave_S in _aligned(reference_S, estimate_S))
    total = 0.0
    for n_fft in STFT_SIZES:
        a_BFT, b_BFT = (
            magnitudes(wave_BS, n_fft, n_fft // 4).clamp(min=FLOOR).log()
            for wave_BS in (a_BS, b_BS)
        )
        total += float((a_BFT - b_BFT).abs().mean())
    return total / len(STFT_SIZES)


def si_sdr(reference_S: Tensor, estimate_S: Tensor) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, limited to +-100 (arXiv 1811.02508).

    Means are removed first. Phase counts: a decoder that sounds alike may score below 0 dB.
    Raises AudioError when either wave is silent.
    """
    a_S, b_S = (wave_S.double() for wave_S in _aligned(reference_S, estimate_S))
    a_S, b_S = a_S - a_S.mean(), b_S - b_S.mean()
    for wave_S in (a_S, b_S):
        check_wave(wave_S)
    target_S = a_S * (a_S @ b_S) / (a_S @ a_S)
    signal, noise = float(target_S.square().sum()), float((b_S - target_S).square().sum())
    return 10 * math.log10(max(signal, 1e-10 * noise) / max(noise, 1e-10 * signal))


def active_level(wave_S: Tensor, rate: int = SAMPLING_RATE) -> float:
    """Loudness in dBFS: RMS over the 20 ms frames within 40 dB of the loudest one.

    Pauses do not count, so the figure does not depend on how much of them a clip has (the idea
    of ITU-T P.56, without its envelope). 0 dBFS is a square wave of amplitude 1. Raises
    AudioError for a silent or empty clip.
    """
    check_wave(wave_S)
    size = rate // 50
    frames_TF = F.pad(wave_S.double(), (0, -len(wave_S) % size)).reshape(-1, size)
    power_T = frames_TF.square().mean(dim=1)
    active_T = power_T[power_T >= power_T.max() * 1e-4]
    return 10 * math.log10(float(active_T.mean()))


def level_difference(reference_S: Tensor, estimate_S: Tensor) -> float:
    """`active_level` of the estimate minus that of the reference, in dB."""
    return active_level(estimate_S) - active_level(reference_S)


def pesq(reference_S: Tensor, estimate_S: Tensor) -> float:
    """Wideband PESQ (ITU-T P.862.2) at 16 kHz: MOS-LQO, from 1.04 to 4.64.

    Raises MissingExtraError without the package, and AudioError where PESQ is not defined:
    silence, clips without speech activity, under a quarter of a second or over 20 s.
    """
    try:
        import pesq as package
    except ImportError:
        raise MissingExtraError("pesq", "eval", "PESQ") from None
    reference_S, estimate_S = _aligned(reference_S, estimate_S)
    check_wave(estimate_S)
    if len(reference_S) > PESQ_SECONDS * SAMPLING_RATE:
        seconds = len(reference_S) / SAMPLING_RATE
        raise AudioError(
            f"PESQ is measured on clips of at most {PESQ_SECONDS} s and this one has {seconds:.1f} "
            "s: cut it at a pause."
        )
    a_S, b_S = (to_16k(wave_S[None])[0].numpy() for wave_S in (reference_S, estimate_S))
    try:
        return float(package.pesq(MODEL_RATE, a_S, b_S, "wb"))
    except package.PesqError as error:
        reason = error.args[0] if error.args else type(error).__name__
        reason = reason.decode() if isinstance(reason, bytes) else reason
        raise AudioError(f"PESQ cannot be measured on this clip: {reason}") from None


def estoi(reference_S: Tensor, estimate_S: Tensor) -> float:
    """Extended short-time objective intelligibility (Jensen and Taal 2016), up to 1.

    Computed by pystoi at 10 kHz. Raises MissingExtraError without the package, and AudioError
    for clips with less than about 0.4 s of speech, on which it is not defined.
    """
    try:
        from pystoi import stoi
    except ImportError:
        raise MissingExtraError("pystoi", "eval", "ESTOI") from None
    reference_S, estimate_S = _aligned(reference_S, estimate_S)
    check_wave(estimate_S)
    with warnings.catch_warnings():
        # pystoi answers 1e-5 with a warning when too few frames are left; that is no figure.
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(
                stoi(reference_S.numpy(), estimate_S.numpy(), SAMPLING_RATE, extended=True)
            )
        except (RuntimeWarning, ValueError) as error:
            raise AudioError(f"ESTOI cannot be measured on this clip: {error}") from None


def to_16k(wave_BS: Tensor) -> Tensor:
    """Resample [B, S] from 24 kHz to [B, ceil(2 S / 3)] at 16 kHz; gradients pass.

    A Kaiser-windowed sinc as two polyphase filters (output 2k lies at input 3k, output 2k + 1 at
    3k + 1.5), zeros beyond the edges, no delay.
    """
    samples = wave_BS.shape[-1]
    out = -(-samples * 2 // 3)
    steps = -(-out // 2)
    right = max(0, 3 * (steps - 1) + _HALF_TAPS + 2 - samples)
    padded_BS = F.pad(wave_BS, (_HALF_TAPS, right))
    kernels = _resampling_kernels().to(wave_BS)
    two_B2T: Tensor = F.conv1d(padded_BS[:, None], kernels[:, None], stride=3)[..., :steps]
    return two_B2T.transpose(1, 2).flatten(1)[:, :out]


@functools.cache
def _resampling_kernels() -> Tensor:
    """The two filters [2, taps]; tap i weighs the input at 3k + i - _HALF_TAPS."""
    taps = torch.arange(-_HALF_TAPS, _HALF_TAPS + 2, dtype=torch.float64)
    offsets = taps[None] - torch.tensor([[0.0], [1.5]], dtype=torch.float64)
    inside = (1 - (offsets / (_HALF_TAPS + 0.5)).square()).clamp(min=0)
    window = torch.special.i0(_KAISER_BETA * inside.sqrt()) * (inside > 0)
    kernels: Tensor = torch.sinc(2 * _CUTOFF_HZ / SAMPLING_RATE * offsets) * window
    return (kernels / kernels.sum(dim=1, keepdim=True)).float()


def check_wave(wave_S: Tensor) -> None:
    """Raise AudioError unless the wave is one channel [S], finite, and not empty or silent."""
    if wave_S.dim() != 1:
        raise AudioError(f"One channel of samples is needed, not a tensor {list(wave_S.shape)}.")
    if not len(wave_S):
        raise AudioError("The clip is empty: it has no samples.")
    if not bool(wave_S.isfinite().all()):
        raise AudioError("The clip has samples that are not finite numbers.")
    if float(wave_S.abs().max()) < SILENCE:
        raise AudioError("The clip is silent: nothing in it rises above -100 dBFS.")


def _aligned(reference_S: Tensor, estimate_S: Tensor) -> tuple[Tensor, Tensor]:
    """Both waves in float32 on the CPU, cut to the shorter; the reference must have sound."""
    samples = min(len(reference_S), len(estimate_S))
    pair = [wave_S.detach().float().cpu()[:samples] for wave_S in (reference_S, estimate_S)]
    check_wave(pair[0])
    if not bool(pair[1].isfinite().all()):
        raise AudioError("The estimate has samples that are not finite numbers.")
    return pair[0], pair[1]
