"""The version. pyproject.toml reads it here too, and a module can import it without importing the whole package."""

__version__ = "0.1.0"
