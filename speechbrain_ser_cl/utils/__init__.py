"""Functions that every part may use: files, errors, audio at 16 kHz."""
