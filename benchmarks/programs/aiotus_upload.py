"""aiotus, as its README shows: aiotus_upload.py FILE URL."""

import asyncio
import sys
from pathlib import Path

import aiotus

if __name__ == "__main__":
    with Path(sys.argv[1]).open("rb") as file:
        if asyncio.run(aiotus.upload(sys.argv[2], file)) is None:
            sys.exit("the upload has failed")
