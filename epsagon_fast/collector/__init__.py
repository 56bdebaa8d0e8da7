"""Runs in the collector process: reads the rings, assembles traces, delivers them."""
