"""Trainings of a model that is being trained, too."""

from tests.recipes.conftest import speech_task

__all__ = ["speech_task"]
