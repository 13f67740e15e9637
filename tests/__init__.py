"""Tests: a package, because a library installs one of the same name, which would come before a mere folder."""

import os
import sys

# Images of containers often have Python keep no bytecode: each of the many processes here would then compile what it
# imports, up to 6000 modules, which takes two thirds of the time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
