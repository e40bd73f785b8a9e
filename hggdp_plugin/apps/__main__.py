"""``hggdp``: one command for all command lines."""

import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "recon": "reconstruct ISMRMRD raw data",
    "train": "train a prior on your own images",
    "simulate": "make undersampled raw data from images or fully sampled k-space",
    "evaluate": "score reconstructions against a reference",
    "convert": "turn a published checkpoint into a prior",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names; returns its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and argv[0] in COMMANDS:
        return import_module(f"hggdp_plugin.apps.{argv[0]}").main(argv[1:])
    usage = "usage: hggdp COMMAND ...; hggdp COMMAND --help tells more\n"
    text = usage + "".join(f"\n  {name:10}{what}" for name, what in COMMANDS.items())
    asked = not argv or argv[0] in ("-h", "--help")
    print(
        text if asked else f"hggdp: no command {argv[0]!r}; choose one of {', '.join(COMMANDS)}",
        file=sys.stdout if asked else sys.stderr,
    )
    return 0 if asked else 2


if __name__ == "__main__":
    sys.exit(main())
