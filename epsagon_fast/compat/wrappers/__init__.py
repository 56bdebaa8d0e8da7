"""A folder for one dotted path: `epsagon.wrappers.django.DjangoMiddleware` becomes `epsagon_fast.compat...`."""
