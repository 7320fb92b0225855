"""Cores of the whole domain."""
