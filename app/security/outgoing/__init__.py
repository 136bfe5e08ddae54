"""Every HTTP call that leaves Haulier goes through ``Outgoing.send``."""
