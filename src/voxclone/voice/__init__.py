"""Voices: codes of a recording, the rows that the language model reads, and their file."""
