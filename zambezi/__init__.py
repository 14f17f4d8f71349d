"""The words and rules that every process of Zambezi shares.

Imports point inward: plugins, ris_service, gateway, migration and operations import this package,
never each other, and this package imports none of orthanc, flask and apscheduler
(tests/contract/test_arrows.py holds that).
"""

__version__ = "0.1.0"
