"""A tracer for many processes: `import epsagon_fast as epsagon`. See README.md."""

__version__ = "0.1.0"
