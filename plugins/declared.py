"""What a migration's plan changes as an image comes is held against what came, while both are at hand.

The proof of a declared change rests on it: the journal says in which elements the stored image differs from the one
that came (by canonical digest, zambezi.digest), and migration holds that against what its plan declared. Only images
of announced migrations that were changed pay for it.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace

from plugins.coercion import Treated
from plugins.pushed import Announced
from zambezi import causes, digest

log = logging.getLogger("zambezi.declared")


def compared(treated: Treated, content: bytes, announced: Announced) -> Treated:
    """With the tags in which it differs from `content`, which came; without, where that can't be said."""
    if treated.came is None or treated.read is None:
        return treated
    because = announced.studies.get(treated.read.study_uid)
    if because is None or because.cause != causes.MIGRATION:
        return treated
    if hashlib.sha256(content).hexdigest() != treated.came.sha256:
        return treated  # it came in an envelope of the coercing port
    try:
        tags = digest.differences(digest.fingerprint(content), digest.fingerprint(treated.content))
    except digest.Unreadable as why:
        log.warning("a changed image can't be held against what came: %s", why)
        return treated
    return replace(treated, came=replace(treated.came, changed=tuple(tags)))
