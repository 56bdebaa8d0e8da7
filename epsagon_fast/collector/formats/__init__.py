"""How a finished trace is written for a backend."""
