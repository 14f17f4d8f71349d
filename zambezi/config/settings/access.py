"""Who may see what beyond a role: the sites of an installation, emergencies, links that share studies."""

from __future__ import annotations

from pydantic import Field

from zambezi.config.settings.section import Name, Section


class AccessSite(Section):
    """What belongs to one of several sites: users whose part is this site see the studies and orders of these."""

    aets: tuple[str, ...] = Field((), alias="AETs", description="AE titles of its modalities, and of old archives.")
    peers: tuple[Name, ...] = Field((), description="HL7 peers whose orders are this site's.")


class Access(Section):
    """What narrows the view of users, and what opens it for a while."""

    sites: dict[Name, AccessSite] = Field(
        default_factory=dict, description="By name; a user may be limited to some of them (`zambezi user scope`)."
    )
    emergency_minutes: float = Field(
        60, ge=5, le=12 * 60, description="So long a study stays open that was opened in an emergency, with a reason."
    )
    share_days: int = Field(30, ge=1, le=366, description="A link that shares studies lasts so long at most.")
