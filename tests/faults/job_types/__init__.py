"""Job types that the fault tests run, beside the real ones."""
