# The same source, compiled.
from epsagon_fast.producer.entering import *  # noqa: F403
