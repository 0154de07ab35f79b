"""What several neural codecs share: packed codes, checkpoints read safely, models of our own."""
