"""Frozen networks that enrolment, training and evaluation use."""
