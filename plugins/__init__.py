"""What runs inside Orthanc: it decides and records, and leaves the rest to its neighbours.

`zambezi_plugin` is the entry script and the only module that imports `orthanc`; the others get what they
need as parameters. Standard library only (the rules are read by zambezi.config, which uses pydantic).
"""
