"""The `nexus` command as `python -m nexus.cli`."""

from nexus.cli import main

main(prog_name="nexus")
