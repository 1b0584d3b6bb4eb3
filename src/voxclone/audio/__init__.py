"""Recordings: from any file to float32 mono 24 kHz, and from there to a usable reference."""
