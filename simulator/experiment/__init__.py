"""`flicker run`: teach the duplicates of every arm from one log, ask them the same queries, measure how they differ."""
