"""The test kit: a runner for handlers, a virtual clock, faults, conformance classes for ports."""
