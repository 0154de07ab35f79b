"""What the listener heard and what the network did, as figures with reasons where there is none."""
