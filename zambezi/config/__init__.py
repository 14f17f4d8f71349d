"""The administrator's JSON: typed settings (`settings`), reading and faults (`load`), what must hold (`safety`)."""

from zambezi.config.load import SECRETS_FILE, Configuration, ConfigurationFaults, Fault, load, read_part
from zambezi.config.settings import Zambezi

__all__ = ["SECRETS_FILE", "Configuration", "ConfigurationFaults", "Fault", "Zambezi", "load", "read_part"]
