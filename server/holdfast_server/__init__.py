"""The Holdfast server. `create_app` makes an ASGI application to run or to mount; `holdfast serve` runs it."""

from holdfast_server.app import create_app
from holdfast_server.settings import Settings

__all__ = ["Settings", "create_app"]
