"""For the tests of those who build on Trunkline, and its own."""

from trunkline.testing.bus import check_bus
from trunkline.testing.clock import ManualClock
from trunkline.testing.faulty_link import FaultyLink, LinkFaults
from trunkline.testing.framers import check_framer
from trunkline.testing.simulator import Simulation, SimulationCounts, SimulationOptions

__all__ = [
    "FaultyLink",
    "LinkFaults",
    "ManualClock",
    "Simulation",
    "SimulationCounts",
    "SimulationOptions",
    "check_bus",
    "check_framer",
]
