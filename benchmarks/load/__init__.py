"""The load: a process of its own, `python -m benchmarks.load`, that sends and reads over raw sockets.

Rule of this package: it costs less than what it measures. Bytes go out by sendfile and come in unread (MSG_TRUNC),
heads are made before the clock starts where they can be, and nothing of ours but this package is imported.
"""
