"""Who asks, and what that one may do.

Principal                a value: owner, projects, scopes; what everything else in the server is asked with
Authority                the port: finds the principal of a request, from its head alone
tokens, jwt, signing     authorities; `chain` puts together those that the settings ask for
"""

from holdfast_server.auth.authority import Authority, Request
from holdfast_server.auth.principal import EVERYBODY, SCOPES, Principal, Scope

__all__ = ["EVERYBODY", "SCOPES", "Authority", "Principal", "Request", "Scope"]
