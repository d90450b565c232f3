"""`flicker check`: what is in a log, as Flicker reads it; and a mapping file to start from where it has none."""
