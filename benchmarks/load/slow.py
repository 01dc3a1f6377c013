"""Clients that send a byte a second, beside which others are measured.

Rule of this file: some never end the head of a request, others send bodies, as many of each as is said; a line on
standard output says when all of them are there, and the end of standard input ends them.
"""

import json
import sys

from tests.support.slow import SlowClients


def main() -> None:
    url, heads, bodies = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with SlowClients(url, heads, bodies) as slow:
        print(json.dumps({"open": slow.open}), flush=True)
        sys.stdin.read()
        print(json.dumps({"open": slow.open, "ended": dict(slow.ended), "sent": slow.sent}), flush=True)


main()
