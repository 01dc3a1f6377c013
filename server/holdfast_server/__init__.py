"""The Holdfast server. `create_app` makes an ASGI application to run or to mount; `holdfast serve` runs it."""

from holdfast_server.app import create_app
from holdfast_server.auth import Authority, Principal, Request
from holdfast_server.auth.signing import sign_upload
from holdfast_server.settings import Settings

__all__ = ["Authority", "Principal", "Request", "Settings", "create_app", "sign_upload"]
