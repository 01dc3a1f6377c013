"""Clients that send a byte a second, beside which others are measured.

Rule of this file: half of them never end the head of a request, half send bodies; a line on standard output says when
all of them are there, and the end of standard input ends them.
"""

import json
import sys

from tests.support.slow import SlowClients


def main() -> None:
    url, count = sys.argv[1], int(sys.argv[2])
    with SlowClients(url, count // 2, count - count // 2) as slow:
        print(json.dumps({"open": slow.open}), flush=True)
        sys.stdin.read()
        print(json.dumps({"open": slow.open, "ended": dict(slow.ended), "sent": slow.sent}), flush=True)


main()
