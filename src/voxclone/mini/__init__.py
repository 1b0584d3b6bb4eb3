"""The mini release: the same architecture and file layout as the real one, small, made by us."""
