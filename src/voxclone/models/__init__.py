"""Frozen networks that enrollment, training and evaluation use."""
