# cython: language_level=3
from epsagon_fast.trimming._reference import trim
