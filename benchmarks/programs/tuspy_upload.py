"""tuspy, as its README shows: tuspy_upload.py FILE URL. It retries: without being told to it gives up at once."""

import sys

from tusclient.client import TusClient

if __name__ == "__main__":
    TusClient(sys.argv[2]).uploader(sys.argv[1], retries=10, retry_delay=1).upload()
