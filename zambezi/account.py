"""Whose files an installation's are: root installs packages, everything else runs as the system account.

Started by root, the `zambezi` command becomes the account before it touches ZAMBEZI_HOME, so that no file
there ever belongs to root and nothing that listens on a port runs with root's rights.
"""

from __future__ import annotations

import os
import pwd
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from zambezi.environment import REPOSITORY, EnvironmentFault

#: Made by `make install` (useradd --system).
ACCOUNT = "zambezi"


def become_account(home: Path) -> None:
    """Prepare the folder and go on as the system account, for good; nothing happens when we aren't root."""
    if os.geteuid() != 0:
        return
    try:
        account = pwd.getpwnam(ACCOUNT)
    except KeyError:
        raise EnvironmentFault(
            f"there is no system account {ACCOUNT}, and nothing of Zambezi runs as root; `make install` makes it"
        ) from None
    blocked = first_blocked(account, [REPOSITORY, Path(sys.prefix), home.parent])
    if blocked:
        raise EnvironmentFault(
            f"the account {ACCOUNT} can't get into {blocked}; move the checkout and ZAMBEZI_HOME to where it can "
            f"(/srv, /opt), or let it pass: chmod o+x {blocked}"
        )
    home.mkdir(parents=True, exist_ok=True)
    if home.stat().st_uid != account.pw_uid:
        home.chmod(0o750)
        for folder, _, files in os.walk(home):
            os.chown(folder, account.pw_uid, account.pw_gid)
            for name in files:
                os.lchown(Path(folder) / name, account.pw_uid, account.pw_gid)
    _become(account)


def become_owner(home: Path) -> None:
    """Go on as the owner of an existing installation: a root's command must leave no file of root's in it."""
    if os.geteuid() != 0 or not home.exists():
        return
    owner = home.stat().st_uid
    if owner != 0:
        _become(pwd.getpwuid(owner))


def at_the_console() -> str:
    """Who types at the console, as audit entries name them: `console:USER`, whatever account the command goes on as.

    The kernel keeps who signed in (loginuid), through sudo and su; where nobody did, sudo's word or the account.
    """
    try:
        signed_in = int(Path("/proc/self/loginuid").read_text())
        return f"console:{pwd.getpwuid(signed_in).pw_name}"
    except (OSError, ValueError, KeyError):  # a container, or a session that no sign-in began (4294967295)
        return f"console:{os.environ.get('SUDO_USER') or pwd.getpwuid(os.getuid()).pw_name}"


def first_blocked(account: pwd.struct_passwd, paths: Iterable[Path]) -> Path | None:
    """The first folder on the way to (and at) one of the paths that the account may not enter."""
    groups = set(os.getgrouplist(account.pw_name, account.pw_gid))
    for path in paths:
        for folder in [*reversed(path.parents), path]:
            if folder.exists() and not _may_enter(account, groups, folder.stat()):
                return folder
    return None


def _may_enter(account: pwd.struct_passwd, groups: set[int], found: os.stat_result) -> bool:
    if found.st_uid == account.pw_uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid in groups:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)


def _become(account: pwd.struct_passwd) -> None:
    os.initgroups(account.pw_name, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    os.environ.update(HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name)
