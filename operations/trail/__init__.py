"""The audit trail looked after: sent to a collector, signed, sealed into segments; and its commands."""
