"""The recovery of a release's encoder as one command: plan, stages, checks, report."""
