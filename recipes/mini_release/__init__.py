"""How the mini release was made: the same architecture and file layout as the real one."""
