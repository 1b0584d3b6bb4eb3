"""Voices in the files of other programs that run the model, written and read by their rules."""
