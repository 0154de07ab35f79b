"""What listens to a stream that is no person: a classifier that decides while the audio plays."""
