"""Traces: events of the hypervisor become records (`recorder`), and records become text (one sink a format).

A trace of a run depends on nothing but the run: two equal runs give byte-equal traces.
"""
