"""The lab without a clock or a network: the same endpoints and link under virtual time."""
