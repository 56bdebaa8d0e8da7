"""What WSGI and ASGI share, and what each does to bodies and routes; wsgi.py and asgi.py are built on it."""
