"""The command `lwmt worlds-eval`, of a checkout that is not installed."""

from lwmt_sionna.commands.worlds_eval import main
from lwmt_sionna.runs import command_line

if __name__ == "__main__":
    command_line.run(main)
