"""Runs in the traced process: tracers, the current trace, encoding, exit."""
