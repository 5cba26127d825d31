"""One process of a demo: `python -m nexus.cli.demo ROLE SETTINGS`, started by `nexus demo`."""

import sys

import orjson

from ._child import run_domain
from ._congestion_relay import relay
from ._congestion_sides import congested_control, congested_plant
from ._control import control
from ._plant import plant

ROLES = {
    "plant": plant,
    "control": control,
    "congested-plant": congested_plant,
    "congested-control": congested_control,
    "relay": relay,
}

sys.exit(run_domain(ROLES[sys.argv[1]], orjson.loads(sys.argv[2])))
