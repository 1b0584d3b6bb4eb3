"""`python -m voxclone`, which is also how torchrun starts it."""

from voxclone.cli import main

if __name__ == "__main__":
    main()
