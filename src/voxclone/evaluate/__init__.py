"""Metrics of codecs, encoders and cloned voices: codes, signal, speaker similarity, error rates."""
