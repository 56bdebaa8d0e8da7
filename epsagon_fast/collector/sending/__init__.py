"""Finished traces on their way to a destination: requests, their verdicts, and the outbox for those that wait."""
