"""A level of the log between INFO and WARNING: what was chosen for a person, shown without being asked for."""

import logging

NOTE = 25
logging.addLevelName(NOTE, "NOTE")
