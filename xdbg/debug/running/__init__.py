"""Letting the guest run, together or thread by thread, and what a stop is."""
