"""Custody: the hold, corrections and deletions; the one service of ours that changes or removes what is archived."""
