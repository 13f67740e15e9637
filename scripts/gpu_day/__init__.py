"""One command for the day a GPU is there: what only a GPU can show, in under nine minutes, without Ray."""
