"""One domain of the demo: `python -m nexus.cli.demo plant|control SETTINGS`, started by `nexus demo`."""

import sys

import orjson

from ._child import run_domain
from ._control import control
from ._plant import plant

sys.exit(run_domain({"plant": plant, "control": control}[sys.argv[1]], orjson.loads(sys.argv[2])))
