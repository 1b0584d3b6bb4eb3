"""The command line, one verb a file. Everything heavy is imported inside the verbs."""


def main() -> None:
    """Entry point of the command `voxclone`."""
    from voxclone.cli.app import main as run

    run()
