"""What the server knows of its uploads: their states, stored ranges, digests, and the log of events.

Rule of this package: SQL is written here and nowhere else. `base.Catalog` is the port; everything outside
imports that and one `open_...` function, and never asks which store is behind it.
"""
