"""Codes of one recording, optimized through the frozen decoder."""
