"""Tracing of programs that are not changed: what `epsagon-fast run COMMAND` brings into each Python below it.

    path/sitecustomize.py   Python imports it at its start, because `run` puts its folder on the PYTHONPATH; it watches
    watched.py              which modules it watches for, and how that and what is left out is handed on
    starting.py             what begins when one of them was imported
    here.py                 the same for a process that is not below `run`
    listing.py              what `run --list` and `run --suggest` say
    own.py                  our own integrations: gunicorn, celery, urllib3, log lines, threads
    applications.py         the servers and frameworks that call WSGI and ASGI applications
    instrumentors.py        OpenTelemetry's instrumentations, as they are installed
    giving_way.py           a program that has OpenTelemetry's SDK keeps it
    libraries.py            the libraries that we know, and the packages that instrument them

A module is imported only when the program imports the library that it is for. A program that imports none of these
pays for sitecustomize.py alone, which imports nothing of this package.
"""
