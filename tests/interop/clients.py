"""The clients of others that the tests of this folder drive, and which version of each is installed.

Rule of this file: a test says with `@pytest.mark.client(...)` whose it is, and becomes a row of docs/interop.md.
"""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

MODULES = Path(__file__).parents[2] / ".cache" / "interop" / "node_modules"

AS_INSTALLED = "as installed"
"""The version of what is not pinned here: the machine has its own."""


@dataclass(frozen=True)
class Client:
    """`packages` are the names of the Node packages, or of the one distribution, whose versions are told."""

    name: str
    packages: tuple[str, ...] = ()
    node: bool = False

    def version(self) -> str:
        """The versions that are installed, separated by commas."""
        if not self.packages:
            return AS_INSTALLED
        return ", ".join(map(_node_version if self.node else version, self.packages))


def _node_version(package: str) -> str:
    path = MODULES / package / "package.json"
    return str(json.loads(path.read_text())["version"]) if path.is_file() else "not installed"


CURL = Client("curl")
TUSPY = Client("tuspy", ("tuspy",))
AIOTUS = Client("aiotus", ("aiotus",))
RESUMABLE_UPLOAD = Client("resumable-upload", ("resumable-upload",))
TUS_JS = Client("tus-js-client, Node", ("tus-js-client",), node=True)
TUS_JS_5 = Client("tus-js-client, Node", ("tus-js-client-5",), node=True)
TUS_JS_BROWSER = Client("tus-js-client, Chromium", ("tus-js-client",), node=True)
TUS_JS_5_BROWSER = Client("tus-js-client, Chromium", ("tus-js-client-5",), node=True)
UPPY = Client("@uppy/core, @uppy/tus, Chromium", ("@uppy/core", "@uppy/tus"), node=True)
