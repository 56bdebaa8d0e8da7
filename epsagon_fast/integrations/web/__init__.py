"""A request as a trace: what the middlewares in wsgi.py and asgi.py, one folder up, are made of. It imports neither."""
