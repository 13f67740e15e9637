"""The run-time check of annotations under pytest: an int may stand where a float is asked for, as PEP 484 has it."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
