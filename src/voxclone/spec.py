"""The contract of the release, once: what every reader and writer of it must agree on.

Sizes that a release states itself (`params.json`) are read from there; here are the numbers and
names that its files do not state, and those of the real release that audio has before
any release is opened.
"""

SAMPLING_RATE = 24000
"""Samples a second of all audio in here."""
FRAME_SIZE = 1920
"""Samples of a codec frame of the release: 12.5 frames a second."""
FRAME_RATE = SAMPLING_RATE / FRAME_SIZE

EMPTY_AUDIO, END_AUDIO = 0, 1
"""Special codes that stand before the codes of every codebook."""
SHIFT = 2
"""The number of special codes: code c of the codec is code c + 2 of the language model."""

CODEC = "audio_tokenizer."
"""Prefix of the codec's tensors."""
TABLE = "mm_audio_embeddings.audio_codebook_embeddings.embeddings.weight"
"""The embedding table with the rows of all codebooks; voices and frames are sums of its rows."""
TEXT_TABLE = "mm_audio_embeddings.tok_embeddings.weight"
PAD_ROWS = 128
"""Tables are padded to a multiple of so many rows."""
VOICES = "voice_embedding"
"""Folder of the presets."""

BOS, AUDIO, BEGIN_AUDIO, REPEAT_AUDIO_TEXT, NEXT_AUDIO_TEXT = 1, 24, 25, 35, 36
"""Token ids of a prompt: BOS, BEGIN_AUDIO, AUDIO for each frame of the voice, NEXT_AUDIO_TEXT,
text, REPEAT_AUDIO_TEXT, BEGIN_AUDIO."""
AROUND_TEXT = 5
"""Positions of a prompt beside voice and text."""
CONTEXT = 4096
"""Positions that a runtime keeps for voice, text and speech (vLLM-Omni's `max_model_len`)."""
