"""The program `lwmt`: which command is where. Nothing is imported but what is called."""

import importlib
import sys
from collections.abc import Sequence

from lwmt_sionna.runs import command_line

# Where the `main` of each command is, and what it does.
COMMANDS = {
    "link-eval": ("commands.link_eval", "block errors and goodput of a link with aged channels"),
    "worlds-eval": ("commands.worlds_eval", "every predictor in every world, with verdicts"),
    "predict": ("commands.predict", "errors of predictors on stored sequences"),
    "trace": ("commands.trace", "trace users that move through a scene"),
    "draw": ("commands.draw", "draw channels of 3GPP TR 38.901"),
    "scene": ("rt.__main__", "list, check, describe scenes; plot tracks over one"),
    "scene new": ("commands.new_city", "make a city, check it and trace users in it"),
    "data": ("data.__main__", "check, summary, plot, import of stored sequences"),
    "train": ("commands.train", "train a predictor"),
    "pretrain": ("commands.pretrain", "pretrain a backbone by masked channel modelling"),
    "finetune": ("commands.finetune", "adapt a pretrained model to data of your own"),
    "convert": ("convert", "published LWM-Temporal weights into a preset"),
    "doctor": ("doctor", "what is installed, and what to do about what is missing"),
}
_HELP = """usage: lwmt COMMAND ...

{}

`lwmt COMMAND --help` says more. --config takes a TOML file, or the name of one that comes with the
package. Results go to the current folder.

Example:
    lwmt link-eval --config link_demo --out runs/demo"""


def main(argv: Sequence[str] | None = None) -> int | None:
    """Runs a command.

    Args:
        argv: Words after `lwmt`. Defaults to those of the process.

    Returns:
        Exit status, or `None` for success.

    Raises:
        UsageError: If there is no such command.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    name = next((n for n in (" ".join(words[:2]), *words[:1]) if n in COMMANDS), None)
    if name is None:
        return _answer(words)
    # What messages and help texts call the program.
    sys.argv[0] = f"lwmt {name}"
    module = importlib.import_module(f"lwmt_sionna.{COMMANDS[name][0]}")
    return module.main(words[len(name.split()) :])


def _answer(words):
    """What is said where no command is called."""
    if words == ["--version"]:
        command_line.say(importlib.import_module("lwmt_sionna").__version__)
    elif not words or words[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = (f"  {name:<{width}}  {told}" for name, (_, told) in COMMANDS.items())
        command_line.say(_HELP.format("\n".join(lines)))
    else:
        raise command_line.UsageError(
            f"unknown command. Expected one of {', '.join(COMMANDS)}. Received: {words[0]}"
        )


def run() -> None:
    """Runs the program and ends the process: the console command `lwmt`."""
    sys.argv[0] = "lwmt"
    command_line.run(main)


if __name__ == "__main__":
    run()
