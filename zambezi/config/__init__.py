"""The administrator's JSON: typed settings (`settings`), reading and faults (`load`), what must hold (`safety`)."""

from zambezi.config.load import Configuration, ConfigurationFaults, Fault, load
from zambezi.config.settings import Zambezi

__all__ = ["Configuration", "ConfigurationFaults", "Fault", "Zambezi", "load"]
