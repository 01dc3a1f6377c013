"""The domain: an upload's life from its creation to its publication or its end.

service     what can be asked of uploads; everything else in this folder stands behind it
upload      the value
writers     who writes where, and how one takes over from another
append      bytes in order, at the prefix
chunk       a range, whole and verified or not at all
frontier    the digest of the whole file, computed while it grows
completion  verify, publish
concatenation  parts put together to one file
upkeep      recovery at start, expiry
"""
