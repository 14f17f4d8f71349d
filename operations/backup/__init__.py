"""Backup and restore: everything an installation is, encrypted by restic, on another disk or machine.

What is copied stands in `copies`, what is proven afterwards in `manifest` and `proving`; docs/decisions/0022 says why.
"""
