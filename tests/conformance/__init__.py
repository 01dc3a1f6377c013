"""The conformance suite: `pytest tests/conformance --server URL` against any server. See docs/conformance.md."""
