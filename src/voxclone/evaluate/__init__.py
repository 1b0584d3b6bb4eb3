"""Figures that decide: codes, signal, likeness, intelligibility."""
