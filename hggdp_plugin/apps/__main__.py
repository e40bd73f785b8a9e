"""``hggdp``: one program for all commands."""

import sys
from collections.abc import Sequence
from importlib import import_module

from hggdp_plugin import __version__

COMMANDS = {
    "recon": "reconstruct raw data or k-space",
    "train": "train a prior on your own images",
    "adapt": "adapt a prior to your own undersampled scans",
    "simulate": "make undersampled raw data from images or fully sampled k-space",
    "evaluate": "score reconstructions against a reference",
    "convert": "convert a published checkpoint to a prior",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names.

    Args:
        argv (sequence of str or None): The arguments; None: those of the process.

    Returns:
        int: The command's exit code; 2 if there is no such command.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and argv[0] in COMMANDS:
        return import_module(f"hggdp_plugin.apps.{argv[0]}").main(argv[1:])
    if argv == ["--version"]:
        print(f"hggdp_plugin {__version__}")
        return 0
    if argv and argv[0] not in ("-h", "--help"):
        print(f"hggdp: unknown command {argv[0]!r}; choose one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    print("usage: hggdp COMMAND ...     (hggdp COMMAND --help lists its options; hggdp --version)\n")
    print("\n".join(f"  {name:10}{what}" for name, what in COMMANDS.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
