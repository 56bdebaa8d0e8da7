"""Tracing of servers and libraries. Each module imports what it traces only when that is there already."""
