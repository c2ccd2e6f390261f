"""Features that are computed once and read by memory map."""
