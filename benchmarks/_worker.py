"""One run of one contestant, in a process of its own; prints one line of JSON."""

import json
import sys

from benchmarks import _harness


def main() -> None:
    """Run the contestant named on the command line."""
    contest, contestant, *options = sys.argv[1:]
    print(json.dumps(_harness.run_here(contest, contestant, quick="--quick" in options)))


if __name__ == "__main__":
    main()
