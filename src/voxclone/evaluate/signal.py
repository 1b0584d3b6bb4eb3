"""Signal metrics of an estimate against its reference: spectral distances, level, PESQ, ESTOI.

Every metric takes (reference, estimate) at 24 kHz and cuts the longer of the two at its end. A
distance falls as the estimate improves; PESQ and ESTOI rise. The Voxtral paper names mel and STFT
distances without defining them: compare only values of this module.

Shapes: B batch, S samples, M mel bands, F frequency bins, T frames.
"""

import warnings
from dataclasses import dataclass, field

from torch import Tensor

from voxclone.audio.loudness import active_level, check_wave
from voxclone.audio.resample import MODEL_RATE, to_16k
from voxclone.audio.spectrum import magnitudes, mel_spectrogram
from voxclone.errors import AudioError, MissingExtraError
from voxclone.spec import SAMPLING_RATE

FLOOR = 1e-5  # magnitudes below count as equal: about -100 dB under a full-scale sine
# The C code of PESQ has room for 50 utterances and crashes beyond; each takes 0.4 s at least.
PESQ_SECONDS = 20
STFT_SIZES = (2048, 1024, 512)


@dataclass(frozen=True)
class SignalScores:
    """All metrics of one clip; None means not measured, for the reason in `missing`."""

    mel_distance: float
    stft_distance: float
    level_difference: float | None
    pesq: float | None
    estoi: float | None
    missing: dict[str, str] = field(default_factory=dict)


def evaluate_pair(reference_S: Tensor, estimate_S: Tensor) -> SignalScores:
    """All metrics of one clip at 24 kHz; one that is not defined is None, and never 0.

    Raises AudioError if the reference is silent, or either wave is empty or not finite.
    """
    reference_S, estimate_S = _aligned(reference_S, estimate_S)
    missing: dict[str, str] = {}
    optional: dict[str, float | None] = {}
    for metric in (level_difference, pesq, estoi):
        name = metric.__name__
        try:
            optional[name] = metric(reference_S, estimate_S)
        except (MissingExtraError, AudioError) as error:
            optional[name], missing[name] = None, str(error)
    return SignalScores(
        mel_distance=mel_distance(reference_S, estimate_S),
        stft_distance=stft_distance(reference_S, estimate_S),
        **optional,
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
        # pystoi returns 1e-5 with a warning for too few frames; that is no measurement.
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(
                stoi(reference_S.numpy(), estimate_S.numpy(), SAMPLING_RATE, extended=True)
            )
        except (RuntimeWarning, ValueError) as error:
            raise AudioError(f"ESTOI cannot be measured on this clip: {error}") from None


def _aligned(reference_S: Tensor, estimate_S: Tensor) -> tuple[Tensor, Tensor]:
    """Both waves in float32 on the CPU, cut to the shorter; the reference must have sound."""
    samples = min(len(reference_S), len(estimate_S))
    pair = [wave_S.detach().float().cpu()[:samples] for wave_S in (reference_S, estimate_S)]
    check_wave(pair[0])
    if not bool(pair[1].isfinite().all()):
        raise AudioError("The estimate has samples that are not finite numbers.")
    return pair[0], pair[1]
