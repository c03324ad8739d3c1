"""Commands killed, stopped and starved at random moments, and what is left: ``python -m tests.faults``."""
