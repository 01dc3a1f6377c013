"""What helps to test code that uses Holdfast: docs/testing.md.

    Server           a real server, as a process of its own, with its data in a folder of the test
    FlakyTransport   a relay before a server, that cuts, stalls and refuses connections by a plan
    VirtualClock     a clock whose waits take no time
    fixtures.py      these as fixtures of pytest: `pytest_plugins = ["holdfast.testing.fixtures"]`

Rule of this package: nothing is pretended but the network's faults and the time. The server is the real one, found by
its command line, so that the client's package need not know it; it comes with the extra `server`.
"""

from holdfast.testing.clock import VirtualClock
from holdfast.testing.flaky import Answer, Cut, Fault, FlakyTransport, Pass, Stall
from holdfast.testing.server import Server

__all__ = ["Answer", "Cut", "Fault", "FlakyTransport", "Pass", "Server", "Stall", "VirtualClock"]
