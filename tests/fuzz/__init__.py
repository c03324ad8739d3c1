"""Every parser fuzzed, guided by what of it was reached: ``python -m tests.fuzz`` (``make fuzz``)."""
