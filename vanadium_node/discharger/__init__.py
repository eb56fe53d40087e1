"""The discharger: says for a third-party caveat whether it still holds, so that a blessing can be revoked within seconds."""

from vanadium_node.discharger.policy import DenyList, Policy, Request
from vanadium_node.discharger.server import run
from vanadium_node.discharger.service import Discharger

__all__ = ["DenyList", "Discharger", "Policy", "Request", "run"]
