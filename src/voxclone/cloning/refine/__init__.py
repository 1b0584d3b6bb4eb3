"""Codes of one recording, optimised through the frozen decoder."""
