"""The other scene: the standard library's packages, traced at once by workers that are started in four ways."""
