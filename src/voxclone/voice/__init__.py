"""Voices: codes of a recording, the embedding that the language model reads, and their file."""
