"""Live progress: who watches, what they are told, and what is remembered of it (protocol.md, section 10).

frames.py       what is told, encoded once
moving.py       uploads that move: how far, how fast
present.py      how far all is, for those who begin to watch
subscriber.py   one connection: its topics, its bounded queue, its recovery
hub.py          reads the log, samples what moves, and tells the subscribers
history.py      samples and the log, kept within bounds
"""
