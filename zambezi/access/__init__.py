"""Access: permissions and roles, signed tokens. Standard library only: the plugin's filter uses it."""

from zambezi.access.permissions import PERMISSIONS, PUBLIC, ROLES, SIGNED_IN, may, narrowed, requires

__all__ = ["PERMISSIONS", "PUBLIC", "ROLES", "SIGNED_IN", "may", "narrowed", "requires"]
