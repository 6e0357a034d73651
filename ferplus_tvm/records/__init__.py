"""Tuning records: how a configuration is written down, found and read."""
