"""The version, in this one place: pyproject.toml reads it too, and modules may without importing the whole package."""

__version__ = "0.1.0"
