"""Settles traces: their outcomes are told to their processes and counted, and losses are noted."""
