"""The random fault test: traffic of every kind meets faults drawn from a seed, and the invariants hold."""
