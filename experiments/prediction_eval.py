"""The command `lwmt predict`, of a checkout that is not installed."""

from lwmt_sionna.commands.predict import main
from lwmt_sionna.runs import command_line

if __name__ == "__main__":
    command_line.run(main)
